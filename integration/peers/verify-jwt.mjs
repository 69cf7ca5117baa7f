// A service that verifies tokens by published keys alone, with the npm package `jose`, which
// oidc-provider brings along. The token comes on stdin; what it says, or why it is refused,
// goes to stdout as JSON.
// Usage: PEERS=DIR node verify-jwt.mjs JWKS-URL ISSUER AUDIENCE
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [jwks, issuer, audience] = process.argv.slice(2);
const require = createRequire(`${process.env.PEERS}/`);
const jose = await import(pathToFileURL(require.resolve('jose')).href);

const token = readFileSync(0, 'utf8');
const answer = (value) => process.stdout.write(JSON.stringify(value));
try {
  const { payload, protectedHeader } = await jose.jwtVerify(
    token,
    jose.createRemoteJWKSet(new URL(jwks)),
    {
      issuer,
      audience,
      typ: 'at+jwt',
      algorithms: ['ES256', 'EdDSA'],
      requiredClaims: ['exp', 'iat', 'sub', 'jti', 'client_id'],
    },
  );
  answer({ header: protectedHeader, claims: payload });
} catch (error) {
  answer({ refused: error.code ?? String(error) });
}
