"""A model that draws also draws pictures on, fills masks and varies pictures, asked by OpenAI's own client."""

import base64
import io
import unittest

import openai
from PIL import Image, ImageChops

from promises.world import GATEWAY, Promise

CLIENT = openai.OpenAI(base_url=f"{GATEWAY}/v1", api_key="unused", max_retries=0)


def opened(result) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(result.data[0].b64_json)))


def file(image: Image.Image) -> tuple[str, bytes, str]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "picture.png", buffer.getvalue(), "image/png"


def left_half(size: tuple[int, int]) -> Image.Image:
    """A mask: what is transparent shall be drawn anew."""
    mask = Image.new("RGBA", size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
    return mask


def changed(one: Image.Image, other: Image.Image) -> float:
    """Mean of all channels' differences."""
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    return sum(value * count for value, count in enumerate(difference.convert("L").histogram())) / (one.width * one.height)


class PicturesFromPictures(Promise):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.heart = opened(CLIENT.images.generate(model="emoji", prompt="red heart", extra_body={"seed": 7})).convert("RGB")

    def edit(self, **fields) -> Image.Image:
        extra = {"seed": 11} | fields.pop("extra", {})
        return opened(CLIENT.images.edit(model="emoji", image=file(self.heart), prompt="blue heart", extra_body=extra, **fields))

    def test_a_picture_is_drawn_on_the_more_the_greater_the_strength(self):
        drawn = [self.edit(extra={"strength": strength}) for strength in (0.1, 0.9)]
        for image in drawn:
            self.assertEqual(image.size, self.heart.size)
        little, much = (changed(image, self.heart) for image in drawn)
        self.assertLess(little, much)
        red, _, blue = drawn[1].convert("RGB").getpixel((32, 28))
        self.assertGreater(blue, red, "the heart is blue now")

    def test_the_same_seed_and_strength_draw_the_same_picture(self):
        self.assertEqual(self.edit().tobytes(), self.edit(extra={"strength": 0.8}).tobytes())

    def test_a_mask_is_filled_and_the_rest_stays_to_the_bit(self):
        drawn = self.edit(mask=file(left_half(self.heart.size))).convert("RGB")
        half = (self.heart.width // 2, 0, *self.heart.size)
        self.assertEqual(drawn.crop(half).tobytes(), self.heart.crop(half).tobytes())
        self.assertGreater(changed(drawn, self.heart), 5)

    def test_a_variation_needs_no_words_and_is_another_picture(self):
        result = CLIENT.images.create_variation(model="emoji", image=file(self.heart), n=2, response_format="b64_json")
        self.assertEqual(len(result.data), 2)
        drawn = opened(result)
        self.assertEqual(drawn.size, self.heart.size)
        self.assertGreater(changed(drawn, self.heart), 1)

    def test_what_can_not_be_done_is_refused_by_name(self):
        small, half = Image.new("RGBA", (16, 16)), left_half(self.heart.size)
        for fields, param in [
            ({"mask": file(small)}, "mask"),
            ({"mask": file(half.convert("RGB"))}, "mask"),
            ({"extra": {"strength": 2}}, "strength"),
            ({"extra": {"strength": 0.01}}, "strength"),
            ({"extra": {"image_guidance_scale": 1.5}}, "image_guidance_scale"),
        ]:
            with self.assertRaises(openai.BadRequestError) as refused:
                self.edit(**fields)
            self.assertEqual(refused.exception.param, param)
        with self.assertRaises(openai.BadRequestError) as refused:
            CLIENT.images.create_variation(model="emoji", image=file(self.heart.crop((0, 0, 64, 32))))
        self.assertEqual(refused.exception.param, "image")


if __name__ == "__main__":
    unittest.main()
