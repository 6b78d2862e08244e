"""A backend on Python's own http.client, over one connection that is kept alive.

    python server_api.py http://127.0.0.1:8000 KEY

It ends with "done" when everything was as expected.
"""

import http.client
import json
import sys
import urllib.parse

url, key = sys.argv[1:3]
connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=20)


def call(method, path, body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers["Authorization"] = f"Bearer {key}"
    if body is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(body)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    return response.status, response.getheader("Allow"), json.loads(response.read())


def ok(method, path, body=None, **headers):
    status, _, answer = call(method, path, body, **headers)
    assert status == 200, (path, status, answer)
    return answer


first = ok("POST", "/api/v1/publish", {"room": "public:python", "data": "von Python übergeben"}, Idempotency_Key="p-1")
assert (first["offset"], first["duplicate"]) == (1, False), first
again = ok("POST", "/api/v1/publish", {"room": "public:python", "data": "von Python übergeben"}, Idempotency_Key="p-1")
assert (again["offset"], again["duplicate"]) == (1, True), again
publishes = [{"room": "public:python", "data": n} for n in range(100)]
assert ok("POST", "/api/v1/batch", {"publishes": publishes})["failed"] == 0
status, _, refused = call("POST", "/api/v1/batch", {"publishes": publishes + publishes[:1]})
assert (status, refused["code"], refused["field"]) == (413, 109, "publishes"), refused

position, seen = {}, []
while True:
    query = urllib.parse.urlencode({"room": "public:python", "limit": 30, **position})
    page = ok("GET", f"/api/v1/history?{query}")
    seen += [message["offset"] for message in page["messages"]]
    position = {"epoch": page["epoch"], "offset": page["offset"]}
    if not page["more"]:
        break
assert seen == list(range(1, 102)), seen

status, allowed, _ = call("GET", "/api/v1/batch")
assert (status, allowed) == (405, "POST"), (status, allowed)
status, _, refused = call("GET", "/api/v1/rooms?limit=many")
assert (status, refused["field"]) == (400, "limit"), refused
# Still the connection of the beginning: refusals that were read whole end nothing.
assert ok("GET", "/api/v1/connections")["next"] is None
print("done")
