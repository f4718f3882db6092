//! The `seckill` Lambda function.

#[tokio::main]
async fn main() -> Result<(), flashsale::lambda::Error> {
    flashsale::lambda::serve(seckill::endpoints()).await
}
