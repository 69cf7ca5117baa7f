//! Whether a public key is one that only its owner can sign for.
//!
//! Invariant: a key passes only if no attack known to us forges signatures under it from the
//! public key alone: short, small or even exponents, small factors, the ROCA generator,
//! points of small order.

const MODULUS_BITS_MIN: usize = 2_048;
const MODULUS_BITS_MAX: usize = 8_192;
const EXPONENT_MIN: u64 = 65_537;
/// What ring verifies with at most.
const EXPONENT_MAX: u64 = (1 << 33) - 1;
const FACTOR_MAX: u32 = 1_000;
/// The generator's primes that tell a ROCA modulus apart (CVE-2017-15361).
const ROCA_PRIME_MAX: u32 = 167;

/// Both are big-endian, without leading zeros.
pub(crate) fn rsa_is_strong(modulus: &[u8], exponent: &[u8]) -> bool {
    let Some(first) = modulus.first() else { return false };
    let zeros = usize::try_from(first.leading_zeros()).unwrap_or(0);
    let bits = modulus.len() * 8 - zeros;
    if !(MODULUS_BITS_MIN..=MODULUS_BITS_MAX).contains(&bits) || exponent.len() > 8 {
        return false;
    }
    let exponent = exponent.iter().fold(0_u64, |e, byte| (e << 8) | u64::from(*byte));
    if exponent % 2 == 0 || !(EXPONENT_MIN..=EXPONENT_MAX).contains(&exponent) {
        return false;
    }
    let residues = || primes().map(|prime| (prime, residue(modulus, prime)));
    if residues().any(|(_, residue)| residue == 0) {
        return false;
    }
    let roca = residues()
        .filter(|(prime, _)| (3..=ROCA_PRIME_MAX).contains(prime))
        .all(|(prime, residue)| is_power_of_65537(residue, prime));
    !roca
}

fn residue(modulus: &[u8], prime: u32) -> u32 {
    modulus.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime)
}

fn primes() -> impl Iterator<Item = u32> {
    (2..FACTOR_MAX).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0))
}

/// Vulnerable chips made primes of the form `k·M + (65537^a mod M)`, so that their product is
/// a power of 65537 modulo every small prime. A random modulus is that for all of them about
/// once in 2^27.
fn is_power_of_65537(residue: u32, prime: u32) -> bool {
    let mut power = 1;
    for _ in 0..prime {
        if power == residue {
            return true;
        }
        power = power * (65_537 % prime) % prime;
    }
    false
}

/// The y coordinates, little-endian and without the sign bit, of the points whose order
/// divides 8. A signature under such a key can be made by anyone.
pub(super) const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    {
        // p - 1
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        minus_one
    },
];

/// Whether `key` is a canonical encoding of a point that is not of small order.
pub(crate) fn ed25519_is_strong(key: &[u8; 32]) -> bool {
    let mut y = *key;
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    // 2^255 - 19 and above: another encoding of a smaller number.
    let [low, middle @ .., high] = y;
    let above_prime = low >= 0xed && high == 0x7f && middle.iter().all(|byte| *byte == 0xff);
    !above_prime && !SMALL_ORDER.contains(&y)
}
