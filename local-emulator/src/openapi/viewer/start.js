// A file of its own, because the page's policy lets no script stand in it.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#viewer",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  // Would ask a server of swagger.io.
  validatorUrl: null,
});
