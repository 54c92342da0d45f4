"""A client without any package: asks the model by proxy, does by MCP what it says. `seats.py` and tests start it."""

import json
import os
import subprocess
import time
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

TOKEN = os.environ["TAU2_MCP_TOKEN"]
DOOR = HTTPConnection(urlsplit(os.environ["TAU2_MCP_URL"]).netloc, timeout=600)


def post(url: str, body: Any) -> Any:
    DOOR.request("POST", urlsplit(url).path, json.dumps(body), {"Authorization": f"Bearer {TOKEN}"})
    response = DOOR.getresponse()
    answer = json.loads(response.read())
    assert response.status == 200, answer
    return answer


def call(method: str, **params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return post(os.environ["TAU2_MCP_URL"], body)["result"]


def tool(name: str, arguments: dict[str, Any]) -> Any:
    return call("tools/call", name=name, arguments=arguments)


def main() -> None:
    if (task := os.environ.get("HANG_AT")) and f"/{task}/" in os.environ["TAU2_SIMULATION"]:
        print("I had rather not", flush=True)
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        time.sleep(600)
    offered = [one for one in call("tools/list")["tools"] if one["name"] not in ("send_message", "read_conversation")]
    tools = [
        {
            "type": "function",
            "function": {"name": one["name"], "description": one["description"], "parameters": one["inputSchema"]},
        }
        for one in offered
    ]
    with open("prompt.md", encoding="utf-8") as file:
        messages = [{"role": "system", "content": file.read()}]
    messages += tool("read_conversation", {})["structuredContent"]["messages"]
    over = False
    while not over:
        asked = {"messages": messages, "tools": tools}
        said = post(f"{os.environ['TAU2_MODEL_URL']}/chat/completions", asked)["choices"][0]["message"]
        messages.append(said)
        if not said["tool_calls"]:
            heard = tool("send_message", {"message": said["content"]})["structuredContent"]
            messages.append({"role": "user", "content": heard["answer"]})
            over = heard["over"]
        for one in said["tool_calls"] or ():
            result = tool(one["function"]["name"], json.loads(one["function"]["arguments"]))["content"][0]["text"]
            messages.append({"role": "tool", "tool_call_id": one["id"], "content": result})
            over = over or result.startswith("The conversation is over")


if __name__ == "__main__":
    main()
