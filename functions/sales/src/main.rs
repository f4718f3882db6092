//! The `sales` Lambda function.

#[tokio::main]
async fn main() -> Result<(), flashsale::lambda::Error> {
    flashsale::lambda::serve(sales::endpoints()).await
}
