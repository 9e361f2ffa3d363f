// The description of the API as a page: nothing but Swagger UI over /openapi.yaml, from this server alone.

import SwaggerUI from 'swagger-ui-dist/swagger-ui-es-bundle.js'
import 'swagger-ui-dist/swagger-ui.css'
import './docs.css'

SwaggerUI({
  domNode: document.getElementById('docs'),
  url: '/openapi.yaml',
  deepLinking: true, // so that a colleague can be sent the address of a route
  defaultModelsExpandDepth: 0,
  persistAuthorization: false, // a token stays in this tab
  validatorUrl: null, // Swagger's own would be asked over the network
})
