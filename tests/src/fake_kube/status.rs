//! `Status` answers of the API server, word for word where they were recorded.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};

/// Any JSON answer.
pub(crate) fn answer(code: StatusCode, body: &Value) -> Response {
    text_answer(code, body.to_string())
}

/// A body that claims to be JSON, whatever it is.
pub(crate) fn text_answer(code: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The body of a `Status`, which is also the object of an `ERROR` watch event.
pub(crate) fn status_body(code: StatusCode, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    })
}

pub(crate) fn failure(code: StatusCode, reason: &str, message: &str) -> Response {
    answer(code, &status_body(code, reason, message))
}

pub(crate) fn bad_request(message: &str) -> Response {
    failure(StatusCode::BAD_REQUEST, "BadRequest", message)
}

pub(crate) fn unauthorized() -> Response {
    failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
}

/// 403 for `user`, who may not `verb` the `resource` of `group`.
pub(crate) fn forbidden(user: &str, verb: &str, resource: &str, group: &str) -> Response {
    let full = if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    };
    let message = format!(
        "{full} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" at the cluster scope"
    );
    let code = StatusCode::FORBIDDEN;
    let mut body = status_body(code, "Forbidden", &message);
    body["details"] = json!({ "kind": resource });
    if !group.is_empty() {
        body["details"]["group"] = json!(group);
    }
    answer(code, &body)
}

pub(crate) fn not_found(resource: &str, name: &str) -> Response {
    let message = format!("{resource} \"{name}\" not found");
    let code = StatusCode::NOT_FOUND;
    let mut body = status_body(code, "NotFound", &message);
    body["details"] = json!({ "name": name, "kind": resource });
    answer(code, &body)
}

/// 429 as priority and fairness answers it.
pub(crate) fn too_many_requests(retry_after_seconds: u64) -> Response {
    let code = StatusCode::TOO_MANY_REQUESTS;
    let message = "Too many requests, please try again later.";
    let mut body = status_body(code, "TooManyRequests", message);
    body["details"] = json!({ "retryAfterSeconds": retry_after_seconds });
    let mut response = answer(code, &body);
    let seconds = HeaderValue::from(retry_after_seconds);
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

/// The version asked for is no longer known: list again.
pub(crate) fn gone(asked: u64, oldest: u64) -> Value {
    status_body(
        StatusCode::GONE,
        "Expired",
        &format!("too old resource version: {asked} ({oldest})"),
    )
}

/// A list cannot go on as it was; with `more` it goes on with what there is by now.
pub(crate) fn list_expired(more: &str) -> Value {
    let mut body = status_body(
        StatusCode::GONE,
        "Expired",
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.",
    );
    body["metadata"]["continue"] = json!(more);
    body
}

/// Parameters of a list or a watch that do not go together: field and what is wrong with it.
pub(crate) fn invalid_options(wrong: &[(&str, String)]) -> Response {
    let said: Vec<String> = wrong
        .iter()
        .map(|(field, what)| format!("{field}: Forbidden: {what}"))
        .collect();
    let said = match said.as_slice() {
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    };
    let code = StatusCode::UNPROCESSABLE_ENTITY;
    let mut body = status_body(
        code,
        "Invalid",
        &format!("ListOptions.meta.k8s.io \"\" is invalid: {said}"),
    );
    let cause = |(field, what): &(&str, String)| json!({ "reason": "FieldValueForbidden", "message": format!("Forbidden: {what}"), "field": field });
    let causes: Vec<Value> = wrong.iter().map(cause).collect();
    body["details"] = json!({ "group": "meta.k8s.io", "kind": "ListOptions", "causes": causes });
    answer(code, &body)
}

/// The version asked for is ahead of everything known.
pub(crate) fn too_large(asked: u64, current: u64) -> Response {
    let code = StatusCode::GATEWAY_TIMEOUT;
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    let mut body = status_body(code, "Timeout", &message);
    body["details"] = json!({
        "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
        "retryAfterSeconds": 1,
    });
    answer(code, &body)
}
