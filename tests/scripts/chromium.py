"""Headless Chromium through its pipe of the devtools protocol: messages of JSON, each ended by a NUL, on descriptors 3 and 4.
Needs the standard library alone. A page's requests, dialogs, console messages and exceptions are kept from its first byte on."""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time


def program():
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if shutil.which(name):
            return shutil.which(name)
    return None


class Page:
    def __init__(self, width=1280, height=900, dark=False, extra=()):
        self.profile = tempfile.mkdtemp(prefix="reckon-chromium-")
        to_child, self.out = os.pipe()
        self.inbox, from_child = os.pipe()
        self.process = None
        command = [program(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
                   "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--force-color-profile=srgb",
                   "--user-data-dir=" + self.profile, "--remote-debugging-pipe", *extra, "about:blank"]

        def descriptors():
            saved = os.dup(to_child), os.dup(from_child)
            os.dup2(saved[0], 3)
            os.dup2(saved[1], 4)
            os.set_inheritable(3, True)
            os.set_inheritable(4, True)

        high = [os.dup(to_child), os.dup(from_child)]  # away from 3 and 4, which the child's are moved to
        self.process = subprocess.Popen(command, preexec_fn=descriptors, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for fd in [to_child, from_child, *high]:
            os.close(fd)
        self.buffer, self.number, self.session = b"", 0, None
        self.requests, self.dialogs, self.console, self.errors, self.events = [], [], [], [], []
        target = self.call("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in target if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")
        self.resize(width, height, dark)

    def resize(self, width, height, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    # One message in; False after `seconds` without any.
    def receive(self, seconds):
        until = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.inbox], [], [], left)[0]:
                return None
            data = os.read(self.inbox, 1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def note(self, message):
        method, values = message.get("method"), message.get("params", {})
        self.events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif method == "Page.javascriptDialogOpening":
            self.dialogs.append(values["message"])
            self.call("Page.handleJavaScriptDialog", accept=False)
        elif method == "Runtime.consoleAPICalled":
            self.console.append(values["type"] + ": " + " ".join(str(a.get("value", a.get("description"))) for a in values["args"]))
        elif method == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded":
            self.errors.append(values["entry"]["level"] + ": " + values["entry"]["text"])

    def call(self, method, **values):
        self.number += 1
        number, message = self.number, {"id": self.number, "method": method, "params": values}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive(60)
            if answer is None:
                raise RuntimeError(method + ": no answer in 60 s")
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(method + ": " + answer["error"]["message"])
                return answer["result"]
            if "method" in answer:
                self.note(answer)

    def settle(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            message = self.receive(until - time.monotonic())
            if message and "method" in message:
                self.note(message)

    def open(self, path, seconds=0.5):
        self.requests, self.dialogs, self.console, self.errors, self.events = [], [], [], [], []
        self.call("Page.navigate", url="file://" + os.path.abspath(path))
        until = time.monotonic() + 60
        while "Page.loadEventFired" not in self.events and time.monotonic() < until:
            self.settle(0.05)
        self.settle(seconds)

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(expression[:80] + ": " + json.dumps(result["exceptionDetails"])[:400])
        return result["result"].get("value")

    def key(self, name, code):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def screenshot(self, path, whole=False):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]))

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(10)
        except (RuntimeError, subprocess.TimeoutExpired, OSError):
            self.process.kill()
            self.process.wait()
        os.close(self.out)
        os.close(self.inbox)
        shutil.rmtree(self.profile, ignore_errors=True)
