//! The way of a request of the server API: who asks, what with, and what is done.
//!
//! It is the only way to a deed, so nothing is done for somebody who was not admitted.

use std::sync::Arc;

use application::refusal::Refusal;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use super::fields::Query;
use super::{ApiKey, Deed, Route, Takes};
use super::{disconnect, guard, list, matches, openapi, out, publish, read, revoke};
use crate::answer::HttpRefusal;
use crate::gateway::Config;
use crate::shared::Shared;

/// A request that was admitted.
pub(super) struct Call<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) config: &'a Config,
    pub(super) route: &'static Route,
    pub(super) key: &'a ApiKey,
    pub(super) headers: &'a HeaderMap,
    pub(super) query: &'a str,
    /// What stands in the path for what the route names there; empty where it names nothing.
    pub(super) name: &'a str,
    pub(super) body: Bytes,
}

impl<'a> Call<'a> {
    /// The parameters of the query: those that the table has and no others.
    pub(super) fn parameters(&self) -> Result<Query<'a>, Refusal> {
        let Takes::Query(parameters) = self.route.takes else { return Query::read("", &[]) };
        let names: Vec<_> = parameters.iter().map(|parameter| parameter.name).collect();
        Query::read(self.query, &names)
    }
}

pub(super) async fn serve(
    shared: &Arc<Shared>,
    route: &'static Route,
    name: &str,
    request: Request,
) -> Response {
    match carry_out(shared, route, name, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn carry_out(
    shared: &Arc<Shared>,
    route: &'static Route,
    name: &str,
    request: Request,
) -> Result<Response, HttpRefusal> {
    let config = &shared.config();
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let key = guard::admit(shared, config, route, &parts)?;
    let body = match route.takes {
        Takes::Query(_) => Bytes::new(),
        Takes::Body { bytes_max, .. } => {
            guard::check_type(headers)?;
            guard::take_body(config, headers, body, bytes_max(config)).await?
        }
    };
    let query = parts.uri.query().unwrap_or_default();
    let call = Call { shared, config, route, key, headers, query, name, body };
    match route.deed {
        Deed::Publish => publish::publish(&call).await,
        Deed::Batch => publish::batch(&call).await,
        Deed::Send => publish::send(&call).await,
        Deed::Presence => read::presence(&call).await,
        Deed::History => read::history(&call).await,
        Deed::Rooms => list::rooms(&call).await,
        Deed::Connections => list::connections(&call).await,
        Deed::Disconnect => disconnect::disconnect(&call).await,
        Deed::Revoke => revoke::revoke(&call).await,
        Deed::CreateMatch => matches::create(&call).await,
        Deed::ListMatches => matches::list(&call).await,
        Deed::GetMatch => matches::get(&call).await,
        Deed::StartMatch => matches::start(&call).await,
        Deed::EndMatch => matches::end(&call).await,
        Deed::Describe => Ok(out::json(openapi::document())),
    }
}
