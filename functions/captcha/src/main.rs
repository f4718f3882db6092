//! The `captcha` Lambda function.

#[tokio::main]
async fn main() -> Result<(), flashsale::lambda::Error> {
    flashsale::lambda::serve(flashsale::wire::Program::Captcha, captcha::endpoints()).await
}
