"""Serves pictures of diffusers behind LitServe, batched as it batches: `serve_litserve.py FOLDER THREADS PORT`. POST / takes prompt,
size, steps and seed and answers a PNG. It must not measure anything."""

import sys

import litserve
from starlette.responses import Response

from drawing import MAX_BATCH, WAIT_SECONDS, Drawing


class Draw(litserve.LitAPI):
    def __init__(self, folder: str, threads: int):
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=WAIT_SECONDS, api_path="/")
        self.folder, self.threads = folder, threads

    def setup(self, device):
        self.drawing = Drawing(self.folder, self.threads)

    def decode_request(self, request):
        return request

    def batch(self, inputs):
        return inputs

    def predict(self, asked):
        return self.drawing.draw(asked)

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return Response(output, media_type="image/png")


if __name__ == "__main__":
    server = litserve.LitServer(Draw(sys.argv[1], int(sys.argv[2])), accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=int(sys.argv[3]), generate_client_file=False, log_level="warning")
