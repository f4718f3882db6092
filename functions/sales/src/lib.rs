//! Sales: the list and the single sale.

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
        domain::Timestamp,
        http::axum::{
            body::Body,
            extract::Request,
            http::{StatusCode, header},
        },
        testing::{self, Reply, Shop, Site},
    };
    use serde_json::Value;

    use super::*;

    async fn get(site: &Site, path: &str, headers: &[(header::HeaderName, &str)]) -> Reply {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        site.send(request.body(Body::empty()).unwrap()).await
    }

    #[tokio::test]
    async fn what_can_not_be_read_is_refused() {
        let shop = Shop::open(&[]).await;
        let (site, sale) = (shop.serve(endpoints()), shop.sale(1).await);
        for id in ["not-an-id", &sale.to_string().to_uppercase(), &testing::sale_id().to_string()] {
            site.get(&format!("/api/sales/{id}"), None).await.refused(404, "not-found");
        }
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("page=2", "query"),
            ("cursor=x", "query"),
        ] {
            let reply = site.get(&format!("/api/sales?{query}"), None).await;
            assert_eq!(reply.refused(422, "invalid").json()["field"], field, "{query}");
        }
        for path in ["/api/sales".to_owned(), format!("/api/sales/{sale}")] {
            let reply = site.call("DELETE", &path, None, Value::Null).await;
            let allowed = reply.refused(405, "method-not-allowed").header("allow").to_owned();
            assert_eq!(allowed, "GET,HEAD");
        }
    }

    #[tokio::test]
    async fn one_address_is_limited_also_in_what_is_answered_from_memory() {
        let settings = [("LIMITS__ADDRESS__LIMIT", "1"), ("LIMITS__ADDRESS__BURST", "1")];
        let shop = Shop::open(&settings).await;
        let site = shop.serve(endpoints());
        let unknown = || format!("/api/sales/{}", testing::sale_id());
        site.get(&unknown(), None).await.refused(404, "not-found");
        site.get(&unknown(), None).await.limited("address", "q=1;w=1");
        site.get("/api/sales", None).await.limited("address", "q=1;w=1");
        shop.clock.advance_ms(1_000);
        // The first request passes the gate and builds the list; the next ones are answered from
        // memory.
        for _ in 0..2 {
            site.get("/api/sales", None).await.expect(200);
        }
        site.get("/api/sales", None).await.limited("address", "q=1;w=1");
        let elsewhere = site.at("198.51.100.1");
        elsewhere.get("/api/sales", None).await.expect(200);
        shop.clock.advance_ms(1_000);
        shop.ban("address", "198.51.100.1").await;
        elsewhere.get(&unknown(), None).await.refused(403, "banned");
    }

    #[tokio::test]
    async fn the_list_has_no_descriptions_and_is_sent_compressed_or_not_at_all() {
        let shop = Shop::open(&[]).await;
        let (site, now) = (shop.serve(endpoints()), shop.app.now());
        let sale = shop.sale(1).await;

        let Reply { status, headers, body: plain } = get(&site, "/api/sales", &[]).await;
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
            (&"Phone".into(), &Value::Null)
        );
        assert!(!String::from_utf8_lossy(&plain).contains("description"));
        let page = get(&site, &format!("/api/sales/{sale}"), &[]).await.json();
        let mut fields: Vec<&String> =
            page.as_object().unwrap().keys().filter(|name| *name != "description").collect();
        let mut listed: Vec<&String> = list["sales"][0].as_object().unwrap().keys().collect();
        fields.sort();
        listed.sort();
        assert_eq!(listed, fields, "the list has all fields of a sale but its description");

        let Reply { status, headers: packed_headers, body: packed } =
            get(&site, "/api/sales", &[(header::ACCEPT_ENCODING, "br, gzip")]).await;
        assert_eq!(
            (status, &packed_headers[header::CONTENT_ENCODING]),
            (StatusCode::OK, &"gzip".parse().unwrap())
        );
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&*packed).read_to_end(&mut unpacked).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&unpacked).unwrap()["sales"][0]["title"],
            "Phone"
        );

        let tag = headers[header::ETAG].to_str().unwrap();
        shop.clock.advance_ms(1);
        let Reply { status, headers, body } =
            get(&site, "/api/sales", &[(header::IF_NONE_MATCH, tag)]).await;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(headers[header::ETAG].to_str().unwrap(), tag);
        let told: Timestamp =
            headers[flashsale::http::SERVER_TIME].to_str().unwrap().parse().unwrap();
        assert_eq!(told, now.plus_ms(1), "the time of this answer");

        shop.sale(1).await;
        let Reply { status, headers, body } =
            get(&site, "/api/sales", &[(header::IF_NONE_MATCH, tag)]).await;
        assert_eq!(status, StatusCode::OK, "a new sale is seen at once here");
        assert_ne!(headers[header::ETAG].to_str().unwrap(), tag);
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap()["sales"].as_array().unwrap().len(),
            2
        );
    }
}
