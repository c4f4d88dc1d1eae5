"""A web server for tests, which writes down what it is asked for."""

import contextlib
import functools
import http.server
import threading


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; of what is `lost`, nothing comes but the end of the connection, of what is `torn`, half."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.lstrip("/") in self.server.lost:
            self.connection.close()
            self.wfile = self.rfile
            return
        super().do_GET()

    def copyfile(self, source, output):
        content = source.read()
        torn = self.path.lstrip("/") in self.server.torn
        output.write(content[: len(content) // 2] if torn else content)
        self.close_connection = torn

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serve(folder):
    """Serve a folder: `address` is where, `asked` the paths so far, `lost` and `torn` sets of names to lose."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    server.asked, server.lost, server.torn = [], set(), set()
    server.handle_error = lambda *arguments: None
    server.address = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
