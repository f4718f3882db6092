//! The `order-status` Lambda function.

#[tokio::main]
async fn main() -> Result<(), flashsale::lambda::Error> {
    flashsale::lambda::serve(flashsale::wire::Program::OrderStatus, order_status::endpoints()).await
}
