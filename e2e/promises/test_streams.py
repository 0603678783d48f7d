"""A client that asks for a stream sees its picture while it is drawn, whatever happens to pods meanwhile."""

import base64
import io
import unittest

import openai
from PIL import Image, ImageChops, ImageStat

from easel import gateway
from promises.world import GATEWAY, LONG, PNG, Promise, inference_pods, kill


def pixels(event) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(event.b64_json))).convert("RGB")


def distance(one: Image.Image, other: Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).sum2)


class Streams(Promise):
    def setUp(self):
        self.client = openai.OpenAI(base_url=f"{GATEWAY}/v1", api_key="unused", max_retries=0)

    def test_openais_own_client_sees_previews_that_come_closer_to_the_picture(self):
        stream = self.client.images.generate(model="emoji", prompt="pizza", stream=True, partial_images=3, extra_body={"seed": 3, "steps": 60})
        *previews, last = list(stream)
        self.assertTrue(previews, "at least the newest preview comes")
        self.assertEqual({event.type for event in previews}, {"image_generation.partial_image"})
        self.assertEqual(last.type, "image_generation.completed")
        indices = [event.partial_image_index for event in previews]
        self.assertEqual(indices, sorted(set(indices)))
        self.assertGreater(last.usage.total_tokens, 0)
        self.assertTrue(base64.b64decode(last.b64_json).startswith(PNG))
        distances = [distance(pixels(event), pixels(last)) for event in previews]
        self.assertLessEqual(distances[-1], distances[0])
        whole = gateway.draw(GATEWAY, model="emoji", prompt="pizza", seed=3, steps=60)
        self.assertEqual(pixels(last).tobytes(), Image.open(io.BytesIO(whole.pictures()[0])).convert("RGB").tobytes())
        self.assertGreater(float(last.model_extra["trailers"]["x-easel-cost-usd"]), 0)

    def test_a_pod_that_dies_in_the_middle_costs_time_and_no_event_comes_twice(self):
        [victim] = inference_pods()
        extra = {"seed": 21, "steps": LONG["steps"]}
        stream = self.client.images.generate(model="emoji", prompt="rocket", n=LONG["n"], stream=True, partial_images=2, extra_body=extra, timeout=150)
        events = [next(stream)]
        self.assertEqual(events[0].type, "image_generation.partial_image")
        kill(victim)
        events += stream
        keys = [(event.model_extra["seed"], getattr(event, "partial_image_index", None)) for event in events]
        self.assertEqual(len(keys), len(set(keys)))
        self.assertEqual([seed for seed, index in keys if index is None], list(range(21, 21 + LONG["n"])))
        self.assertGreaterEqual(int(events[-1].model_extra["trailers"]["x-easel-attempts"]), 2)

    def test_what_can_not_be_drawn_has_its_status_although_a_stream_was_asked_for(self):
        with self.assertRaises(openai.NotFoundError) as refused:
            self.client.images.generate(model="dall-e-9", prompt="fire", stream=True)
        self.assertEqual(refused.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as refused:
            self.client.images.generate(model="emoji", prompt="fire", partial_images=2)
        self.assertEqual(refused.exception.param, "partial_images")


if __name__ == "__main__":
    unittest.main()
