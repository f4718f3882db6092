"""AWS's own SDK (boto3) against the emulator's Invoke API: invoking.py ENDPOINT_URL

The functions called are `greeting` (this folder), and the product's `sales`, `sweeper` and `order-worker`.
"""

import base64
import json
import sys
import threading

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint = sys.argv[1]
client = boto3.client(
    "lambda",
    endpoint_url=endpoint,
    region_name="us-east-1",
    aws_access_key_id="none",
    aws_secret_access_key="none",
    config=Config(retries={"total_max_attempts": 1}, read_timeout=60, max_pool_connections=20),
)


def invoke(function, event, **more):
    answer = client.invoke(FunctionName=function, Payload=json.dumps(event), **more)
    return answer, json.loads(answer["Payload"].read() or b"null")


def refused(code, status, function, event, **more):
    try:
        client.invoke(FunctionName=function, Payload=event, **more)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error.response
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status, error.response
        return error
    raise AssertionError(f"{function} should have refused with {code}")


# Results, with a log and a client context.
answer, result = invoke("greeting", {"a": [1, "é"]}, LogType="Tail")
assert answer["StatusCode"] == 200 and answer["ExecutedVersion"] == "$LATEST", answer
assert "FunctionError" not in answer, answer
assert result == {"a": [1, "é"]}, result
log = base64.b64decode(answer["LogResult"]).decode()
assert "greeting " in log and "END RequestId" in log, log
context = base64.b64encode(json.dumps({"custom": {"k": "v"}, "client": {}, "env": {}}).encode()).decode()
_, told = invoke("greeting", {"context": 1}, ClientContext=context)
arn = "arn:aws:lambda:us-east-1:000000000000:function:greeting"
assert told == {"function": "greeting", "arn": arn, "memory": "256", "custom": {"k": "v"}}, told
assert invoke(arn, {"by": "arn"})[1] == {"by": "arn"}

# Function errors: those that the function tells, those of its process, and those of time.
answer, error = invoke("greeting", {"raise": "no luck"})
assert answer["StatusCode"] == 200 and answer["FunctionError"] == "Unhandled", answer
assert error["errorType"] == "ValueError" and error["errorMessage"] == "no luck", error
assert any("raise ValueError" in line for line in error["stackTrace"]), error
answer, error = invoke("greeting", {"exit": 9})
assert answer["FunctionError"] == "Unhandled" and error["errorType"] == "Runtime.ExitError", error
assert "exit status 9" in error["errorMessage"], error
answer, error = invoke("greeting", {"sleep": 30})
assert error["errorType"] == "Sandbox.Timedout" and "Task timed out after 2.00 seconds" in error["errorMessage"], error

# Without waiting, and without doing.
answer, _ = invoke("greeting", {}, InvocationType="Event")
assert answer["StatusCode"] == 202, answer
answer, _ = invoke("greeting", {}, InvocationType="DryRun")
assert answer["StatusCode"] == 204, answer

# Refusals.
refused("ResourceNotFoundException", 404, "nobody", "{}")
refused("InvalidRequestContentException", 400, "greeting", "no json")
refused("RequestTooLargeException", 413, "greeting", '"' + "x" * (6 * 1024 * 1024) + '"')

# One instance, one at a time, two may wait: of six the others are throttled. What was not waited for is done before.
invoke("greeting", {})
outcomes = []


def crowd():
    try:
        outcomes.append(client.invoke(FunctionName="greeting", Payload='{"sleep":1}')["StatusCode"])
    except client.exceptions.TooManyRequestsException as error:
        assert error.response["Reason"] == "ConcurrentInvocationLimitExceeded", error.response
        outcomes.append(error.response["ResponseMetadata"]["HTTPStatusCode"])


crowd_threads = [threading.Thread(target=crowd) for _ in range(6)]
for thread in crowd_threads:
    thread.start()
for thread in crowd_threads:
    thread.join()
assert sorted(outcomes) == [200, 200, 200, 429, 429, 429], outcomes

# The product's own functions: HTTP events, a schedule's, a queue's.
http = {"method": "GET", "path": "/api/sales", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "boto3"}
event = {
    "version": "2.0",
    "routeKey": "$default",
    "rawPath": "/api/sales",
    "rawQueryString": "limit=1",
    "headers": {"host": "shop.example"},
    "requestContext": {"stage": "$default", "http": http, "timeEpoch": 0},
    "isBase64Encoded": False,
}
_, page = invoke("sales", event)
assert page["statusCode"] == 200 and "sales" in json.loads(page["body"]), page
tick = {"detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}
answer, result = invoke("sweeper", tick)
assert "FunctionError" not in answer and isinstance(result["leader"], bool) and result["failed"] == 0, result
answer, error = invoke("order-worker", {})
assert answer["FunctionError"] == "Unhandled" and "holds no messages" in error["errorMessage"], error
print("ok")
