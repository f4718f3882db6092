"""A function for AWS's own Python runtime client (awslambdaric): greets over HTTP, and fails when it is told to."""

import base64
import json
import os
import time


def handler(event, context):
    print(f"greeting {context.aws_request_id}")
    if "requestContext" not in event:
        return direct(event, context)
    body = event.get("body", "")
    if event["isBase64Encoded"]:
        body = base64.b64decode(body).hex()
    return {
        "statusCode": 201,
        "headers": {"Content-Type": "application/json", "X-Greeter": "python"},
        "cookies": ["greeted=yes; Path=/"],
        "body": json.dumps(
            {
                "hello": event["pathParameters"]["name"],
                "method": event["requestContext"]["http"]["method"],
                "query": event.get("queryStringParameters", {}),
                "body": body,
                "remaining_ms": context.get_remaining_time_in_millis(),
            }
        ),
    }


def direct(event, context):
    if "raise" in event:
        raise ValueError(event["raise"])
    if "exit" in event:
        os._exit(event["exit"])
    if "sleep" in event:
        time.sleep(event["sleep"])
    if "context" in event:
        return {
            "function": context.function_name,
            "arn": context.invoked_function_arn,
            "memory": context.memory_limit_in_mb,
            "custom": context.client_context.custom if context.client_context else None,
        }
    return event
