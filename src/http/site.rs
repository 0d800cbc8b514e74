//! The endpoints of the configuration, and the look-up of a request among them.
//!
//! Must not know: what an endpoint does.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::Method;

use super::auth::Auth;
use super::backend::Backend;
use super::routes::ROUTES;
use crate::config::{Compiled, RouteMethod};
use crate::metrics::{Metrics, RouteCounter, Tally};

/// A route, with what is counted of it.
pub struct Endpoint {
    /// The route.
    pub route: Arc<Compiled>,
    /// Its requests.
    pub counter: RouteCounter,
    /// The counters that it asks for.
    pub tally: Option<Tally>,
}

/// Everything that the configuration adds to the built-in routes.
pub struct Site {
    /// The routes, the more literal paths first.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Where their data is; `None` in a site without routes.
    pub backend: Option<Backend>,
    /// The requests of the built-in routes, by their paths.
    pub counters: HashMap<&'static str, RouteCounter>,
    /// Who may use those that ask for a token.
    pub auth: Auth,
}

/// What a look-up finds.
pub enum Found {
    /// This route, with the raw values of its path's parameters.
    Route(Arc<Endpoint>, Vec<String>),
    /// Routes of this path, by other methods. Holds a label and the methods.
    Methods(String, Vec<&'static str>),
    /// Nothing.
    Nothing,
}

impl Site {
    /// A site with these routes; registers the counters that they ask for.
    ///
    /// # Errors
    /// A metric's name that is taken.
    pub fn new(
        routes: Vec<Compiled>,
        backend: Option<Backend>,
        auth: Auth,
        metrics: &Metrics,
    ) -> prometheus::Result<Self> {
        let endpoint = |route: Compiled| {
            let counter = metrics.http.route(route.path.source());
            let tally = tally(&route, metrics)?;
            Ok(Arc::new(Endpoint { route: Arc::new(route), counter, tally }))
        };
        let mut endpoints = routes.into_iter().map(endpoint).collect::<prometheus::Result<Vec<_>>>()?;
        endpoints.sort_by_key(|endpoint| endpoint.route.path.order());
        let counters = ROUTES.iter().map(|route| (route.path, metrics.http.route(route.path))).collect();
        Ok(Self { endpoints, backend, counters, auth })
    }

    /// A site without routes.
    pub fn empty() -> Self {
        let (endpoints, counters) = (Vec::new(), HashMap::new());
        Self { endpoints, backend: None, counters, auth: Auth::default() }
    }

    /// The routes.
    pub fn routes(&self) -> impl Iterator<Item = &Compiled> {
        self.endpoints.iter().map(|endpoint| &*endpoint.route)
    }

    /// Finds the route of a request.
    pub fn find(&self, method: &Method, path: &str) -> Found {
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let mut others: Option<(String, Vec<&'static str>)> = None;
        for endpoint in &self.endpoints {
            let route = &endpoint.route;
            let Some(values) = route.path.find(path) else { continue };
            if method_of(route.method) == *wanted {
                return Found::Route(Arc::clone(endpoint), values.into_iter().map(str::to_owned).collect());
            }
            let (_, methods) = others.get_or_insert_with(|| (route.path.source().to_owned(), Vec::new()));
            methods.extend(names(route.method));
        }
        others.map_or(Found::Nothing, |(label, methods)| Found::Methods(label, methods))
    }
}

/// The counters that a route asks for.
fn tally(route: &Compiled, metrics: &Metrics) -> prometheus::Result<Option<Tally>> {
    if route.count.is_empty() {
        return Ok(None);
    }
    let named = |what: &str| route.count.iter().find(|(key, _)| key == what).map(|(_, name)| name.as_str());
    let names = [named("hits"), named("misses"), named("rows")];
    Tally::register(metrics.registry(), names, named("by")).map(Some)
}

/// The method of HTTP.
pub fn method_of(method: RouteMethod) -> Method {
    match method {
        RouteMethod::Get => Method::GET,
        RouteMethod::Post => Method::POST,
        RouteMethod::Put => Method::PUT,
        RouteMethod::Patch => Method::PATCH,
        RouteMethod::Delete => Method::DELETE,
    }
}

/// The methods that a route of this method answers.
fn names(method: RouteMethod) -> &'static [&'static str] {
    match method {
        RouteMethod::Get => &["GET", "HEAD"],
        RouteMethod::Post => &["POST"],
        RouteMethod::Put => &["PUT"],
        RouteMethod::Patch => &["PATCH"],
        RouteMethod::Delete => &["DELETE"],
    }
}
