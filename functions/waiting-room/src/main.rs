//! The `waiting-room` Lambda function.

#[tokio::main]
async fn main() -> Result<(), flashsale::lambda::Error> {
    flashsale::lambda::serve(flashsale::wire::Program::WaitingRoom, waiting_room::endpoints()).await
}
