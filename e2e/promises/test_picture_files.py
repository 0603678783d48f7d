"""A picture comes as the file that was asked for, with or without its background, and says that a model made it."""

import io
import unittest

import openai
from PIL import Image, ImageChops, ImageStat

from easel import gateway
from promises.world import GATEWAY, Promise

SOURCE = b"digitalsourcetype/trainedAlgorithmicMedia"


def draw(**fields) -> gateway.Answer:
    return gateway.draw(GATEWAY, model="emoji", prompt="rose", seed=1, **fields)


class PictureFiles(Promise):
    def opened(self, answer: gateway.Answer) -> Image.Image:
        self.assertEqual(answer.status, 200, answer.body[:500])
        image = Image.open(io.BytesIO(answer.pictures()[0]))
        image.load()
        return image

    def test_each_format_comes_back_as_itself_and_says_that_a_model_made_it(self):
        for asked in ("png", "jpeg", "webp"):
            answer = draw(output_format=asked)
            image = self.opened(answer)
            self.assertEqual((image.format, image.mode, image.size), (asked.upper(), "RGB", (64, 64)))
            packet = image.info["xmp"]
            packet = packet if isinstance(packet, bytes) else packet.encode()
            self.assertIn(SOURCE, packet)
            self.assertIn(b"Seed: 1,", packet)
            self.assertEqual((answer.json()["output_format"], answer.json()["background"]), (asked, "opaque"))

    def test_compression_trades_bytes_for_looks(self):
        for asked in ("jpeg", "webp"):
            small, large = (draw(output_format=asked, output_compression=level).pictures()[0] for level in (10, 90))
            self.assertLess(len(small), len(large))

    def test_a_transparent_background_leaves_the_rose(self):
        for asked in ("png", "webp"):
            answer = draw(background="transparent", output_format=asked)
            alpha = self.opened(answer).getchannel("A")
            self.assertEqual(answer.json()["background"], "transparent")
            self.assertGreaterEqual(alpha.getpixel((32, 20)), 240, "the blossom stays")
            for corner in ((0, 0), (63, 0), (0, 63), (63, 63)):
                self.assertLessEqual(alpha.getpixel(corner), 8, "the background goes")

    def test_an_upscaled_picture_is_four_times_as_wide_and_high(self):
        answer = draw(size="64x64", upscale=4)
        large, small = self.opened(answer), self.opened(draw(size="64x64"))
        self.assertEqual((large.size, answer.json()["size"]), ((256, 256), "256x256"))
        difference = ImageChops.difference(large.resize((64, 64), Image.Resampling.BOX), small)
        self.assertLess(max(ImageStat.Stat(difference).rms), 16, "the same picture")

    def test_openais_own_client_asks_for_both(self):
        client = openai.OpenAI(base_url=f"{GATEWAY}/v1", api_key="unused", max_retries=0)
        result = client.images.generate(model="emoji", prompt="rose", size="64x64", output_format="webp", output_compression=80,
                                        background="transparent", extra_body={"seed": 1})
        self.assertEqual((result.output_format, result.background), ("webp", "transparent"))
        self.assertTrue(result.data[0].b64_json.startswith("UklGR"))  # RIFF
        with self.assertRaises(openai.BadRequestError) as refused:
            client.images.generate(model="emoji", prompt="rose", output_format="jpeg", background="transparent")
        self.assertEqual(refused.exception.param, "background")


if __name__ == "__main__":
    unittest.main()
