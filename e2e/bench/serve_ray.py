"""Serves pictures of diffusers behind Ray Serve, batched by `@serve.batch`: `serve_ray.py FOLDER THREADS PORT`. POST / takes prompt,
size, steps and seed and answers a PNG. It must not measure anything."""

import asyncio
import sys
import threading

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from drawing import MAX_BATCH, WAIT_SECONDS, Drawing


@serve.deployment(max_ongoing_requests=10_000, ray_actor_options={"num_cpus": 1})
class Draw:
    def __init__(self, folder: str, threads: int):
        self.drawing = Drawing(folder, threads)

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=WAIT_SECONDS)
    async def batched(self, asked: list[dict]) -> list[bytes]:
        return await asyncio.to_thread(self.drawing.draw, asked)

    async def __call__(self, request: Request) -> Response:
        return Response(await self.batched(await request.json()), media_type="image/png")


if __name__ == "__main__":
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[3])})
    serve.run(Draw.bind(sys.argv[1], int(sys.argv[2])))
    threading.Event().wait()
