// A certified OpenID Provider on https://localhost:PORT, with a confidential client that gets signed
// JWT access tokens for whatever resource it names, and a public one at which people sign in, by
// whatever name they type.
// Usage: PEERS=DIR node oidc-provider.mjs PORT DIRECTORY-WITH-cert.pem-AND-key.pem
import { createServer } from 'node:https';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [port, directory] = process.argv.slice(2);
const require = createRequire(`${process.env.PEERS}/`);
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')).href);

const provider = new Provider(`https://localhost:${port}`, {
  clients: [{
    client_id: 'ci-job',
    client_secret: 'ci-job-secret',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  }, {
    client_id: 'dayfly-cli',
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    grant_types: [
      'authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code',
    ],
    redirect_uris: ['http://127.0.0.1/callback'],
    response_types: ['code'],
  }],
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      useGrantedResource: () => true,
      getResourceServerInfo: (_context, audience) => ({
        audience,
        scope: '',
        accessTokenFormat: 'jwt',
        accessTokenTTL: 300,
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
});

createServer(
  { cert: readFileSync(`${directory}/cert.pem`), key: readFileSync(`${directory}/key.pem`) },
  provider.callback(),
).listen(Number(port), 'localhost');
