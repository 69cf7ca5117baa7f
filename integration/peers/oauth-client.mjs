// A client that knows nothing of the broker but its URL, with the npm package `oauth4webapi`: it
// finds the endpoints, exchanges identity tokens for a task's, mints with that, and gives it back.
// What to do comes on stdin as JSON; what became of it goes to stdout as JSON.
// Usage: PEERS=DIR node oauth-client.mjs ISSUER <<< '{"parameters": {…}, "dpop": true, "role": "…"}'
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const issuer = new URL(process.argv[2]);
const wanted = JSON.parse(readFileSync(0, 'utf8'));
const require = createRequire(`${process.env.PEERS}/`);
const oauth = await import(pathToFileURL(require.resolve('oauth4webapi')).href);

const answer = (value) => process.stdout.write(JSON.stringify(value));
// The broker of a test listens on loopback, without TLS.
const insecure = { [oauth.allowInsecureRequests]: true };
const client = { client_id: 'a-client-of-the-tests' };
const nobody = oauth.None();

try {
  const discovered = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure });
  const server = await oauth.processDiscoveryResponse(issuer, discovered);
  const options = { ...insecure };
  if (wanted.dpop) {
    options.DPoP = oauth.DPoP(client, await oauth.generateKeyPair('ES256'));
  }
  const exchanged = await oauth.genericTokenEndpointRequest(
    server,
    client,
    nobody,
    server.grant_types_supported[0],
    wanted.parameters,
    options,
  );
  const cached = exchanged.headers.get('cache-control');
  const token = await oauth.processGenericTokenEndpointResponse(server, client, exchanged);
  const minted = await oauth.protectedResourceRequest(
    token.access_token,
    'POST',
    new URL('/api/v1/leases', issuer),
    new Headers({ 'content-type': 'application/json' }),
    JSON.stringify({ role: wanted.role }),
    options,
  );
  const lease = await minted.json();
  const headers = new Headers();
  if (wanted.dpop) {
    await options.DPoP.addProof(new URL(server.revocation_endpoint), headers, 'POST');
  }
  const revoked = await oauth.revocationRequest(server, client, nobody, token.access_token, {
    ...insecure,
    headers,
  });
  await oauth.processRevocationResponse(revoked);
  answer({ server, cached, token, lease, revoked: revoked.status });
} catch (error) {
  if (error instanceof oauth.ResponseBodyError) {
    const { status, error: code, error_description: description } = error;
    answer({ refused: { status, code, description } });
  } else {
    answer({ failed: String(error), cause: String(error.cause ?? '') });
  }
}
