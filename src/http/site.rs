//! The endpoints of the configuration, and the look-up of a request among them.
//!
//! Must not know: what an endpoint does.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::Method;

use super::auth::Auth;
use super::backend::Backend;
use crate::config::{Compiled, RouteMethod};
use crate::metrics::{Metrics, Tally};

/// Everything that the configuration adds to the built-in routes.
pub struct Site {
    /// The routes, the more literal paths first.
    pub routes: Vec<Arc<Compiled>>,
    /// Where their data is; `None` in a site without routes.
    pub backend: Option<Backend>,
    /// Counters of their own, by the names of routes.
    tallies: HashMap<String, Tally>,
    /// Who may use those that ask for a token.
    pub auth: Auth,
}

/// What a look-up finds.
pub enum Found {
    /// This route, with the raw values of its path's parameters.
    Route(Arc<Compiled>, Vec<String>),
    /// Routes of this path, by other methods. Holds a label and the methods.
    Methods(String, Vec<&'static str>),
    /// Nothing.
    Nothing,
}

impl Site {
    /// A site with these routes.
    pub fn new(routes: Vec<Compiled>, backend: Option<Backend>, auth: Auth) -> Self {
        let mut routes: Vec<_> = routes.into_iter().map(Arc::new).collect();
        routes.sort_by_key(|route| route.path.order());
        Self { routes, backend, tallies: HashMap::new(), auth }
    }

    /// Registers the counters that routes ask for.
    ///
    /// # Errors
    /// A metric's name that is taken.
    pub fn count(&mut self, metrics: &Metrics) -> prometheus::Result<()> {
        for route in self.routes.iter().filter(|route| !route.count.is_empty()) {
            let named =
                |what: &str| route.count.iter().find(|(key, _)| key == what).map(|(_, name)| name.as_str());
            let names = [named("hits"), named("misses"), named("rows")];
            let tally = Tally::register(metrics.registry(), names, named("by"))?;
            self.tallies.insert(route.name.clone(), tally);
        }
        Ok(())
    }

    /// The counters of a route, where it has some.
    pub fn tally(&self, route: &str) -> Option<&Tally> {
        self.tallies.get(route)
    }

    /// A site without routes.
    pub fn empty() -> Self {
        Self::new(Vec::new(), None, Auth::default())
    }

    /// Finds the route of a request.
    pub fn find(&self, method: &Method, path: &str) -> Found {
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let mut others: Option<(String, Vec<&'static str>)> = None;
        for route in &self.routes {
            let Some(values) = route.path.find(path) else { continue };
            if method_of(route.method) == *wanted {
                return Found::Route(Arc::clone(route), values.into_iter().map(str::to_owned).collect());
            }
            let (_, methods) = others.get_or_insert_with(|| (route.path.source().to_owned(), Vec::new()));
            methods.extend(names(route.method));
        }
        others.map_or(Found::Nothing, |(label, methods)| Found::Methods(label, methods))
    }
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
