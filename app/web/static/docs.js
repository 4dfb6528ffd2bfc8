// The script that FastAPI would write into the page, where the content policy would block it.
const place = document.querySelector("#swagger");

window.SwaggerUIBundle({
  domNode: place,
  url: place.dataset.openapi,
  presets: [window.SwaggerUIBundle.presets.apis, window.SwaggerUIBundle.SwaggerUIStandalonePreset],
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
