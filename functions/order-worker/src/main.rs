//! The `order-worker` Lambda function.

#[tokio::main]
async fn main() -> Result<(), flashsale::lambda::Error> {
    flashsale::lambda::handle(flashsale::wire::Program::OrderWorker, order_worker::handle).await
}
