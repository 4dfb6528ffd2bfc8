"""The dashboard and the alert rules in deploy/monitoring query existing series only."""

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.app.fakes import encode

MONITORING = Path(__file__).parents[3] / "deploy" / "monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
RULES = [rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
EXPRESSIONS = [
    *((panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]),
    *((rule["alert"], rule["expr"]) for rule in RULES),
]


def find_selectors(node) -> list[tuple[str, set[str]]]:
    """Return each metric in an expression, with the labels that it matches."""
    if isinstance(node, promql_parser.VectorSelector):
        return [(node.name, {matcher.name for matcher in node.matchers.matchers})]
    found = []
    for name in ("expr", "lhs", "rhs", "vector_selector", "args"):
        child = getattr(node, name, None)
        for part in child if isinstance(child, list) else [child]:
            found += find_selectors(part) if part is not None else []
    return found


@pytest.fixture
def series(client) -> dict[str, set[str]]:
    """The name of each series after all kinds of requests, with its labels."""
    client.post("/predict", files={"file": encode()})
    client.post("/predict", files={"file": b"text"})
    client.app.state.metrics.observe_hang_up("silent")
    shown: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            shown.setdefault(sample.name, set()).update(sample.labels)
    return shown


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS, ids=[f"{i}-{t}" for i, (t, _) in enumerate(EXPRESSIONS)])
def test_an_expression_is_valid_and_its_series_exist(series, title, expression):
    """A panel with a misspelled name would stay empty, and a rule would never fire."""
    parsed = promql_parser.parse(expression.replace("$__rate_interval", "5m"))
    selectors = find_selectors(parsed)
    assert selectors, title
    for name, labels in selectors:
        assert name in series
        assert labels <= series[name]
    grouped = {label for labels in re.findall(r"by \(([^)]*)\)", expression) for label in re.split(r",\s*", labels)}
    assert grouped <= {"instance"} | set().union(*(series[name] for name, _ in selectors))


def test_errors_are_counted_without_probes(client):
    """A probe gets 503 while a version loads, which should not page anybody."""
    (rule,) = (rule["expr"] for rule in RULES if rule["alert"] == "ClassifierErrors")
    patterns = re.findall(r'route!~"([^"]+)"', rule)
    assert len(patterns) == 2
    routes = client.get("/openapi.json").json()["paths"]
    for pattern in patterns:
        left_out = {route for route in routes if re.fullmatch(pattern, route)}
        assert left_out == {"/health", "/health/live", "/v2/health/live", "/v2/health/ready"}


def test_each_rule_says_what_to_do():
    """It has a severity, a duration, a summary and a description."""
    assert {rule["alert"] for rule in RULES} == {
        "ClassifierErrors", "ClassifierSlow", "ClassifierQueueWait", "ClassifierUnfamiliarImages",
    }  # fmt: skip
    for rule in RULES:
        assert re.fullmatch(r"\d+m", rule["for"])
        assert rule["labels"]["severity"] in {"page", "warn"}
        assert {"summary", "description"} == set(rule["annotations"])


def test_the_dashboard_shows_every_metric_of_the_service(series):
    """A metric that nobody looks at is not worth measuring."""
    asked = " ".join(expression for _, expression in EXPRESSIONS)
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in series if name.startswith("classifier_")}
    assert [name for name in sorted(families) if name not in asked] == []


def test_panels_do_not_overlap():
    """And each has a description."""
    places = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & places, panel["title"]
        assert grid["x"] + grid["w"] <= 24
        assert panel["description"]
        places |= cells
