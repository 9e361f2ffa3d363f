// The description of the API as a page: Swagger UI over /openapi.yaml, without other servers.

import SwaggerUI from 'swagger-ui-dist/swagger-ui-es-bundle.js'
import 'swagger-ui-dist/swagger-ui.css'
import './docs.css'

SwaggerUI({
  domNode: document.getElementById('docs'),
  url: '/openapi.yaml',
  deepLinking: true, // each route has an address to share
  defaultModelsExpandDepth: 0,
  persistAuthorization: false, // a token stays in this tab
  validatorUrl: null, // the default asks a server of Swagger's
})
