// Starts Swagger UI on this server's own description; nothing is asked of any other host.
"use strict";

(() => {
  const base = new URL(".", document.baseURI);

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", paint);
  paint();

  // A page in a reader's hands calls the server that it came from, under whatever prefix that is.
  const prefix = base.pathname.replace(/\/$/, "") || "/";
  const here = () => ({
    statePlugins: {
      spec: {
        wrapActions: {
          updateJsonSpec: (original) => (spec) => original({ ...spec, servers: [{ url: prefix }] }),
        },
      },
    },
  });

  window.ui = SwaggerUIBundle({
    url: new URL("openapi.json", base).href,
    dom_id: "#swagger-ui",
    presets: [SwaggerUIBundle.presets.apis],
    plugins: [here],
    layout: "BaseLayout",
    deepLinking: true,
    displayRequestDuration: true,
    tryItOutEnabled: true,
    defaultModelsExpandDepth: 0,
    validatorUrl: null,
    queryConfigEnabled: false,
  });
})();
