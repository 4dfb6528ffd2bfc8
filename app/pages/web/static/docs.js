// The script that FastAPI would write into the page, where the content policy would block it.
const place = document.querySelector("#swagger");

window.SwaggerUIBundle({
  domNode: place,
  url: place.dataset.openapi,
  presets: [window.SwaggerUIBundle.presets.apis, window.SwaggerUIBundle.SwaggerUIStandalonePreset],
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  onComplete() {
    // What scrolls by itself must be within the keyboard's reach.
    for (const table of place.querySelectorAll(".renderedMarkdown table")) table.tabIndex = 0;
  },
});

// Swagger UI has dark colours, and leaves it to a button when they show.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
