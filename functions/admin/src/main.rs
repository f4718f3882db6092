//! The `admin` Lambda function.

#[tokio::main]
async fn main() -> Result<(), flashsale::lambda::Error> {
    flashsale::lambda::serve(admin::endpoints()).await
}
