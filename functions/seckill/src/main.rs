//! The `seckill` Lambda function.

#[tokio::main]
async fn main() -> Result<(), flashsale::lambda::Error> {
    flashsale::lambda::serve(flashsale::wire::Program::Seckill, seckill::endpoints()).await
}
