//! The `sweeper` Lambda function.

#[tokio::main]
async fn main() -> Result<(), flashsale::lambda::Error> {
    flashsale::lambda::handle(flashsale::wire::Program::Sweeper, sweeper::handle).await
}
