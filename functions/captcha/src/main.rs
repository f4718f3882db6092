//! The `captcha` Lambda function.

#[tokio::main]
async fn main() -> Result<(), flashsale::lambda::Error> {
    flashsale::lambda::serve(captcha::endpoints()).await
}
