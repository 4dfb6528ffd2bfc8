// FastAPI writes this script into the page, where the content security policy would block it.
const place = document.querySelector("#swagger");

window.SwaggerUIBundle({
  domNode: place,
  url: place.dataset.openapi,
  presets: [window.SwaggerUIBundle.presets.apis, window.SwaggerUIBundle.SwaggerUIStandalonePreset],
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  onComplete() {
    // Scrollable elements must be focusable, so that they scroll by keyboard.
    for (const table of place.querySelectorAll(".renderedMarkdown table")) table.tabIndex = 0;
  },
});

// Swagger UI turns on its dark theme only by a button.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
