// A certified OpenID Provider on https://localhost:PORT, with one confidential client that
// gets signed JWT access tokens for whatever resource it names.
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
  }],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
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
