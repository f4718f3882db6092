//! Sale pages: the list, and each sale's own.

use flashsale::{
    api::{SaleList, SaleView},
    app::App,
    domain::SaleId,
    http::{
        ClientAddress, HandlerResult, PageQuery, Params,
        axum::{Json, extract::State, http::HeaderMap, response::Response},
        cached_json,
        endpoints::{Endpoint, Endpoints, get},
    },
};

/// The function's endpoints.
pub fn endpoints() -> Endpoints {
    Endpoints::new("Sales", "Public, and cached for a moment.", [get_sales(), get_sale()])
}

fn get_sales() -> Endpoint {
    get("/api/sales", list)
        .called("list_sales", "All sales, newest first.")
        .about(
            "Without descriptions. Compressed for those who take gzip; 304 for those whose `If-None-Match` names the answer's `ETag`.",
        )
        .paged::<SaleId>()
        .gives::<SaleList>(200, "A page of them.")
        .with_header("ETag", "Names the answer; `server_time` does not count.")
        .with_header("Server-Time", "The server's clock when it answered.")
}

async fn list(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    page: PageQuery<SaleId>,
    headers: HeaderMap,
) -> HandlerResult<Response> {
    let list = app.sale_list(&client, page.cursor, page.limit).await?;
    Ok(cached_json(&app, &headers, &list))
}

fn get_sale() -> Endpoint {
    get("/api/sales/{sale_id}", one)
        .called("get_sale", "One sale.")
        .gives::<SaleView>(200, "The sale.")
}

async fn one(
    State(app): State<App>,
    ClientAddress(client): ClientAddress,
    Params(sale_id): Params<SaleId>,
) -> HandlerResult<Json<SaleView>> {
    Ok(Json(app.sale_page(&client, sale_id).await?))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flashsale::{
        api::NewSale,
        config::Config,
        domain::Timestamp,
        http::axum::{
            body::{Body, to_bytes},
            extract::{ConnectInfo, Request},
            http::{StatusCode, header},
        },
        testing::order_id,
        wire,
    };
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;

    async fn get(
        app: &App,
        path: &str,
        headers: &[(header::HeaderName, &str)],
    ) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request
            .extensions_mut()
            .insert(ConnectInfo(std::net::SocketAddr::from(([192, 0, 2, 7], 1))));
        let (parts, body) =
            endpoints().router(app.clone()).oneshot(request).await.unwrap().into_parts();
        (parts.status, parts.headers, to_bytes(body, usize::MAX).await.unwrap().to_vec())
    }

    #[tokio::test]
    async fn the_list_has_no_descriptions_and_is_sent_compressed_or_not_at_all() {
        let dir = std::env::temp_dir().join(format!("flashsale-sales-{}", order_id()));
        let config =
            Config::load(None, [("FLASHSALE_DATA_DIR".to_owned(), dir.display().to_string())], [])
                .unwrap();
        let app = App::new(config.clone(), wire::connect(&config).await.unwrap()).unwrap();
        let now = app.now();
        let new = |title: &str| NewSale {
            title: title.to_owned(),
            description: "A text that only the sale's own page has.".to_owned(),
            image_url: String::new(),
            price: 100,
            original_price: None,
            currency: None,
            stock: 1,
            per_user_limit: None,
            starts_at: now,
            ends_at: now.plus_ms(3_600_000),
        };
        let sale = app.create_sale(new("Kettle")).await.unwrap();

        let (status, headers, plain) = get(&app, "/api/sales", &[]).await;
        assert_eq!(
            (status, &headers[header::CONTENT_TYPE]),
            (StatusCode::OK, &"application/json".parse().unwrap())
        );
        assert_eq!(
            (&headers[header::CACHE_CONTROL], &headers[header::VARY]),
            (&"no-cache".parse().unwrap(), &"accept-encoding".parse().unwrap())
        );
        let list: Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(
            (&list["sales"][0]["title"], &list["next_cursor"]),
            (&"Kettle".into(), &Value::Null)
        );
        assert!(!String::from_utf8_lossy(&plain).contains("description"));
        let (_, _, page) = get(&app, &format!("/api/sales/{}", sale.sale_id), &[]).await;
        let page: Value = serde_json::from_slice(&page).unwrap();
        let mut fields: Vec<&String> =
            page.as_object().unwrap().keys().filter(|name| *name != "description").collect();
        let mut listed: Vec<&String> = list["sales"][0].as_object().unwrap().keys().collect();
        fields.sort();
        listed.sort();
        assert_eq!(listed, fields, "all else that a sale's own page has");

        let (status, packed_headers, packed) =
            get(&app, "/api/sales", &[(header::ACCEPT_ENCODING, "br, gzip")]).await;
        assert_eq!(
            (status, &packed_headers[header::CONTENT_ENCODING]),
            (StatusCode::OK, &"gzip".parse().unwrap())
        );
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&unpacked).unwrap()["sales"][0]["title"],
            "Kettle"
        );

        let tag = headers[header::ETAG].to_str().unwrap();
        let (status, headers, body) =
            get(&app, "/api/sales", &[(header::IF_NONE_MATCH, tag)]).await;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(headers[header::ETAG].to_str().unwrap(), tag);
        let told: Timestamp =
            headers[flashsale::http::SERVER_TIME].to_str().unwrap().parse().unwrap();
        assert!(told >= now && told <= app.now(), "the time of this answer");

        app.create_sale(new("Watch")).await.unwrap();
        let (status, headers, body) =
            get(&app, "/api/sales", &[(header::IF_NONE_MATCH, tag)]).await;
        assert_eq!(status, StatusCode::OK, "a new sale is seen at once here");
        assert_ne!(headers[header::ETAG].to_str().unwrap(), tag);
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap()["sales"].as_array().unwrap().len(),
            2
        );
        drop(app);
        let _ = std::fs::remove_dir_all(dir);
    }
}
