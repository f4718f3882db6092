//! The `admin` Lambda function.

#[tokio::main]
async fn main() -> Result<(), flashsale::lambda::Error> {
    flashsale::lambda::serve(flashsale::wire::Program::Admin, admin::endpoints()).await
}
