//! The settings of HTTP routes, defined once.
//!
//! Must not know: how a setting is parsed, documented or overridden.

use std::time::Duration;

use super::compound::{List, Optional, Required};
use super::define::{settings, words};
use super::inline::Pairs;
use super::kind::{Count, Flag, Fraction, Hidden, Text};
use super::kind::{choice, duration, duration_or};
use super::mapping::NAME;
use super::nested::{Named, Nested, Scalar};
use super::secret::Secret;
use super::settings::{USERNAME, hours, ms, secs, some_text};

const TOKENS: Text = some_text("bearer tokens, comma separated", "change-me");
const JWT_SECRET: Text = Text {
    expects: "a secret of at least 32 bytes",
    example: "change-me-change-me-change-me-change-me",
    check: |text| text.len() >= 32,
};
const PEM: Text = some_text("the path of a PEM file", "jwt.pub.pem");
const PATH: Text = some_text("a path that begins with /, with {parameters}", "/api/v1/users/{id}");
const SQL: Text = some_text(
    "a statement with its parameters as $name",
    "insert into users (name) values ($name) returning *",
);
const PATTERN: Text = Text {
    expects: "a regular expression",
    example: "[A-Za-z0-9_-]{1,20}",
    check: |text| regex::Regex::new(&format!("^(?:{text})$")).is_ok(),
};
const SHAPE: Text = some_text("JSON whose texts may hold {placeholders}", "{\"data\": \"{row}\"}");
const INVALIDATES: Text = some_text("a key with {placeholders}; with a * it is a pattern", "user:{id}");

/// What can come of a request to a route, with its usual status.
pub const OUTCOMES: [(&str, u16); 6] = [
    ("ok", 200),
    ("invalid", 400),
    ("unauthorized", 401),
    ("not_found", 404),
    ("conflict", 409),
    ("error", 500),
];
const OUTCOME_NAMES: [&str; 6] = ["ok", "invalid", "unauthorized", "not_found", "conflict", "error"];

words! {
    /// Method of a route.
    RouteMethod {
        /// Reads; answers HEAD, too.
        Get = "GET",
        /// Creates.
        Post = "POST",
        /// Replaces, or updates what is named.
        Put = "PUT",
        /// Updates what is named.
        Patch = "PATCH",
        /// Deletes.
        Delete = "DELETE",
    }

    /// Who may use a route.
    RouteAuth {
        /// Everybody.
        None = "none",
        /// Who shows a bearer token that `[auth]` accepts.
        Bearer = "bearer",
    }

    /// Where a parameter is given.
    ParamFrom {
        /// In the path.
        Path = "path",
        /// In the query.
        Query = "query",
        /// A member of the JSON body.
        Body = "body",
        /// A header, with `-` for each `_` of the name.
        Header = "header",
        /// A claim of the bearer token.
        Claim = "claim",
    }

    /// Type of a parameter.
    ParamKind {
        /// Text.
        Text = "text",
        /// Whole number.
        Integer = "integer",
        /// Number.
        Number = "number",
        /// True or false.
        Boolean = "boolean",
        /// Any JSON.
        Json = "json",
    }
}

settings! {
    /// Who may use the routes with `auth = "bearer"`.
    AuthConfig in "auth" {
        /// Tokens that are accepted as they are, comma separated.
        tokens: Option<Secret> = None, Optional(Hidden(TOKENS));
        /// Secret of JWTs signed by HS256. Needed for the placeholder `{token}`, too.
        jwt_secret: Option<Secret> = None, Optional(Hidden(JWT_SECRET));
        /// File with the public key (PEM) of JWTs signed by RS256.
        jwt_public_key: Option<String> = None, Optional(PEM);
        /// What the claim `iss` has to be. Unset: anything.
        jwt_issuer: Option<String> = None, Optional(Text { example: "https://login.example", ..USERNAME });
        /// What the claim `aud` has to be, or contain. Unset: such a claim is not looked at.
        jwt_audience: Option<String> = None, Optional(Text { example: "app", ..USERNAME });
        /// By how much clocks may differ when `exp` and `nbf` are checked.
        jwt_leeway: Duration = secs(5), duration_or("not at all", secs(1)..=secs(300));
        /// How long a `{token}` that a route hands out is good.
        token_ttl: Duration = hours(1), duration(secs(1)..=hours(24 * 365));
    }

    /// An HTTP endpoint over a mapping or a statement. See docs/http.md.
    RouteConfig in "route" {
        /// Name of the route, in metrics and as the operation of the OpenAPI document. Each is used once.
        name: String = String::new(), Required(Text { example: "get_user", ..NAME });
        /// Its method.
        method: RouteMethod = RouteMethod::Get, choice::<RouteMethod>();
        /// Its path. Each `{parameter}` is one of `params`, or a text when it is not named there.
        path: String = String::new(), Required(PATH);
        /// What it does, for people who read the OpenAPI document.
        summary: Option<String> = None, Optional(Text { example: "A user by id", ..USERNAME });
        /// The mapping whose key it reads (GET), writes (POST, PUT, PATCH) or deletes (DELETE). The parameters named as the
        /// placeholders of the key make the key; what else stands in the body is the value.
        mapping: Option<String> = None, Optional(Text { example: "user", ..NAME });
        /// The statement that it runs, instead of a mapping. The rows that it returns are what the answer shows.
        sql: Option<String> = None, Optional(SQL);
        /// The mapping whose rows the statement writes. The rows that it returns then tell which entries are no longer true:
        /// theirs, and those that depend on them by `invalidate_on`.
        writes: Option<String> = None, Optional(Text { example: "user", ..NAME });
        /// Its parameters.
        params: Nested<ParamConfig> = Nested::default(),
            Named { names: &[], example: "{ id = { from = \"path\", kind = \"integer\" } }", of: std::marker::PhantomData };
        /// Its answers, by outcome. An outcome that is not named here has its usual status, and the row (`ok`) or a problem
        /// of RFC 9457 as its body.
        on: Nested<OutcomeConfig> = Nested::default(),
            Named { names: &OUTCOME_NAMES, example: "{ not_found = { status = 404 } }", of: std::marker::PhantomData };
        /// Further keys that are no longer true after the statement; `{placeholders}` are parameters and `row.MEMBER`s.
        invalidates: Vec<String> = Vec::new(), List(INVALIDATES);
        /// Counters of its own in the metrics: the names of those for `hits`, `misses` and `rows` (of hits), and the parameter `by`
        /// which hits and misses are counted (at most 1000 of its values by themselves).
        count: Vec<(String, String)> = Vec::new(), Pairs {
            text: "the name of a metric, or of a parameter (`by`)",
            example: "{ hits = \"list_hits_total\", misses = \"list_misses_total\", by = \"user_id\" }",
        };
        /// Who may use it.
        auth: RouteAuth = RouteAuth::None, choice::<RouteAuth>();
        /// How long an answer may take. Unset: `http.request_timeout`.
        timeout: Option<Duration> = None, Optional(duration(ms(1)..=hours(1)));
    }

    /// A parameter of a route.
    ParamConfig in "route.params" {
        /// Where it is given. Unset: in the path where the path names it, else in the query (GET, DELETE) or the body.
        from: Option<ParamFrom> = None, Optional(choice::<ParamFrom>());
        /// Its type.
        kind: ParamKind = ParamKind::Text, choice::<ParamKind>();
        /// What the whole text has to match.
        pattern: Option<String> = None, Optional(PATTERN);
        /// Least value of a number, or least characters of a text.
        min: Option<f64> = None, Optional(Fraction(-9e15..=9e15));
        /// Greatest value of a number, or most characters of a text.
        max: Option<f64> = None, Optional(Fraction(-9e15..=9e15));
        /// Whether it has to be given. One with a default never has to.
        required: bool = true, Flag;
        /// What it is when it is not given.
        default: Option<String> = None, Optional(Scalar);
    }

    /// An answer of a route.
    OutcomeConfig in "route.on" {
        /// Its status. Unset: 200 for `ok`, 400 `invalid`, 401 `unauthorized`, 404 `not_found`, 409 `conflict`, 500 `error`.
        status: Option<usize> = None, Optional(Count(200..=599));
        /// Its body. A text that is one placeholder becomes its value (`"{row}"`), in a longer text it becomes characters
        /// (`"ok:{source}"`).
        body: Option<String> = None, Optional(SHAPE);
    }
}
