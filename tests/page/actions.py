"""What a person does on the page, and how tests read the result."""

from playwright.sync_api import expect

PHONE = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True}
SMALLEST = {**PHONE, "viewport": {"width": 320, "height": 640}}


def as_file(data: bytes, name: str = "image.png") -> dict:
    return {"name": name, "mimeType": "image/png", "buffer": data}


def choose(page, *files: dict) -> None:
    page.set_input_files("#file", list(files))


def expect_label(page, label: str) -> None:
    expect(page.locator("#shown .label")).to_have_text(label)
