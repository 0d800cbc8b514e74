//! Bearer tokens: static ones, and JWTs that are verified or handed out.
//!
//! Must not know: routes.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, TokenData, Validation, decode, encode};
use serde_json::{Map, Value as Json};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use crate::config::AuthConfig;

/// The claims of a token; a static one has none.
pub type Claims = Map<String, Json>;

/// Accepts and makes tokens. The default accepts none.
#[derive(Default)]
pub struct Auth {
    tokens: Vec<String>,
    keys: Vec<(DecodingKey, Validation)>,
    signing: Option<(EncodingKey, AuthConfig)>,
}

impl Auth {
    /// Reads the keys.
    ///
    /// # Errors
    /// What is wrong with the file of the public key; never a secret.
    pub fn new(config: &AuthConfig) -> Result<Self, String> {
        let mut auth = Self::default();
        if let Some(tokens) = &config.tokens {
            let tokens = tokens.expose().split(',').map(str::trim).filter(|token| !token.is_empty());
            auth.tokens = tokens.map(str::to_owned).collect();
        }
        if let Some(secret) = &config.jwt_secret {
            let secret = secret.expose().as_bytes();
            auth.keys.push((DecodingKey::from_secret(secret), validation(Algorithm::HS256, config)));
            auth.signing = Some((EncodingKey::from_secret(secret), config.clone()));
        }
        if let Some(path) = &config.jwt_public_key {
            let pem = std::fs::read(path)
                .map_err(|error| format!("[auth] jwt_public_key: {path} cannot be read: {error}"))?;
            let key = DecodingKey::from_rsa_pem(&pem).map_err(|error| {
                format!("[auth] jwt_public_key: {path} is no RSA public key (PEM): {error}")
            })?;
            auth.keys.push((key, validation(Algorithm::RS256, config)));
        }
        Ok(auth)
    }

    /// The claims of the token in an `Authorization` header.
    pub fn check(&self, header: Option<&str>) -> Result<Claims, ApiError> {
        let refused = |text: &str| ApiError::Unauthorized(text.to_owned());
        let header = header.ok_or_else(|| refused("a bearer token is needed"))?;
        let token = header
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| refused("the Authorization header has no bearer token"))?;
        // Every one is compared, each in constant time: how long it takes tells nothing about the right one.
        let equal = self
            .tokens
            .iter()
            .fold(false, |equal, known| bool::from(known.as_bytes().ct_eq(token.as_bytes())) | equal);
        if equal {
            return Ok(Claims::new());
        }
        // Each key is tried with its own algorithm only: a token cannot choose how it is verified.
        let mut reason = "the token is not accepted".to_owned();
        for (key, validation) in &self.keys {
            match decode::<Claims>(token, key, validation) {
                Ok(TokenData { claims, .. }) => return Ok(claims),
                Err(error) => {
                    use jsonwebtoken::errors::ErrorKind;
                    match error.kind() {
                        ErrorKind::ExpiredSignature => reason = "the token has expired".to_owned(),
                        ErrorKind::ImmatureSignature => reason = "the token is not valid yet".to_owned(),
                        ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience => {
                            reason = "the token is for somebody else".to_owned();
                        }
                        ErrorKind::MissingRequiredClaim(claim) => {
                            reason = format!("the token has no `{claim}`")
                        }
                        _ => {}
                    }
                }
            }
        }
        Err(ApiError::Unauthorized(reason))
    }

    /// A token of its own for `subject`, with these further claims. Needs `auth.jwt_secret`.
    pub fn sign(&self, subject: &str, mut claims: Claims) -> Option<String> {
        let (key, config) = self.signing.as_ref()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        claims.insert("sub".to_owned(), subject.into());
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), (now + config.token_ttl.as_secs()).into());
        for (name, value) in [("iss", &config.jwt_issuer), ("aud", &config.jwt_audience)] {
            if let Some(value) = value {
                claims.insert(name.to_owned(), value.as_str().into());
            }
        }
        encode(&Header::new(Algorithm::HS256), &claims, key).ok()
    }
}

fn validation(algorithm: Algorithm, config: &AuthConfig) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = config.jwt_leeway.as_secs();
    validation.validate_nbf = true;
    let mut needed = vec!["exp"];
    match &config.jwt_audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            needed.push("aud");
        }
        None => validation.validate_aud = false,
    }
    if let Some(issuer) = &config.jwt_issuer {
        validation.set_issuer(&[issuer]);
        needed.push("iss");
    }
    validation.set_required_spec_claims(&needed);
    validation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use serde_json::json;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn auth() -> Auth {
        Auth::new(&AuthConfig {
            tokens: Some(Secret::new("one, two")),
            jwt_secret: Some(Secret::new(SECRET)),
            jwt_issuer: Some("me".into()),
            jwt_audience: Some("app".into()),
            ..AuthConfig::default()
        })
        .unwrap()
    }

    fn signed(claims: Json, secret: &str, algorithm: Algorithm) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        format!("Bearer {}", encode(&Header::new(algorithm), &claims, &key).unwrap())
    }

    #[test]
    fn tokens_that_are_accepted() {
        let auth = auth();
        assert!(auth.check(Some("Bearer two")).is_ok() && auth.check(Some("bearer one")).is_ok());
        let own = auth.sign("7", Claims::new()).unwrap();
        let claims = auth.check(Some(&format!("Bearer {own}"))).unwrap();
        assert_eq!((claims["sub"].as_str(), claims["iss"].as_str()), (Some("7"), Some("me")));
    }

    #[test]
    fn tokens_that_are_not() {
        let auth = auth();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let good = json!({"exp": now + 60, "iss": "me", "aud": ["x", "app"]});
        assert!(auth.check(Some(&signed(good.clone(), SECRET, Algorithm::HS256))).is_ok());
        let with = |name: &str, value: Json| {
            let mut claims = good.clone();
            claims[name] = value;
            signed(claims, SECRET, Algorithm::HS256)
        };
        let without = |name: &str| {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().remove(name);
            signed(claims, SECRET, Algorithm::HS256)
        };
        for (header, reason) in [
            (None, "is needed"),
            (Some(String::new()), "no bearer"),
            (Some("Basic b25l".into()), "no bearer"),
            (Some("Bearer three".into()), "not accepted"),
            (Some("Bearer ".into()), "not accepted"),
            (Some(with("exp", json!(now - 60))), "expired"),
            (Some(with("nbf", json!(now + 60))), "not valid yet"),
            (Some(with("iss", json!("you"))), "somebody else"),
            (Some(with("aud", json!("other"))), "somebody else"),
            (Some(without("exp")), "no `exp`"),
            (Some(without("aud")), "no `aud`"),
            (Some(signed(good.clone(), &SECRET.to_uppercase(), Algorithm::HS256)), "not accepted"),
            (Some(signed(good.clone(), SECRET, Algorithm::HS512)), "not accepted"),
            // {"alg":"none"}
            (Some("Bearer eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9.".into()), "not accepted"),
        ] {
            let error = auth.check(header.as_deref()).unwrap_err().to_string();
            assert!(error.contains(reason), "{header:?}: {error}");
        }
        assert!(Auth::default().check(Some("Bearer one")).is_err());
    }
}
