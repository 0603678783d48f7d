"""A newcomer applies a pool and a model, and gets a picture that a real model drew in a real pod."""

import io
import unittest

import openai
from PIL import Image

from easel import gateway
from promises.world import CLUSTER, GATEWAY, PNG, Promise, inference_pods


class FirstPicture(Promise):
    def test_a_prompt_becomes_a_png_with_its_parameters(self):
        answer = gateway.draw(GATEWAY, model="emoji", prompt="red heart", seed=11, n=2)
        self.assertEqual(answer.status, 200, answer.body[:500])
        pictures = answer.pictures()
        self.assertEqual(len(pictures), 2)
        self.assertTrue(all(picture.startswith(PNG) for picture in pictures))
        self.assertNotEqual(pictures[0], pictures[1])
        image = Image.open(io.BytesIO(pictures[0]))
        self.assertEqual(image.size, (64, 64))
        self.assertIn("red heart", image.text["parameters"])
        self.assertIn("Seed: 11", image.text["parameters"])
        colours = image.convert("RGB").getcolors(maxcolors=5000)
        self.assertGreater(len(colours), 20, "the picture is not blank")
        self.assertEqual([image["seed"] for image in answer.json()["data"]], [11, 12])

    def test_the_same_seed_draws_the_same_picture_and_another_does_not(self):
        draw = lambda seed: gateway.draw(GATEWAY, model="emoji", prompt="pizza", seed=seed).pictures()[0]  # noqa: E731
        first, again, other = draw(3), draw(3), draw(4)
        pixels = lambda png: Image.open(io.BytesIO(png)).tobytes()  # noqa: E731
        self.assertEqual(pixels(first), pixels(again))
        self.assertNotEqual(pixels(first), pixels(other))

    def test_openais_own_client_draws_and_lists_and_understands_errors(self):
        client = openai.OpenAI(base_url=f"{GATEWAY}/v1", api_key="unused", max_retries=0)
        self.assertEqual([model.id for model in client.models.list()], ["emoji"])
        result = client.images.generate(model="emoji", prompt="fire", size="64x64", response_format="b64_json", extra_body={"seed": 5})
        self.assertTrue(result.data[0].b64_json.startswith("iVBOR"))
        self.assertGreater(result.usage.total_tokens, 0)
        with self.assertRaises(openai.NotFoundError) as refused:
            client.images.generate(model="dall-e-9", prompt="fire")
        self.assertEqual(refused.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as refused:
            client.images.generate(model="emoji", prompt="fire", size="63x64")
        self.assertEqual(refused.exception.param, "size")

    def test_headers_say_which_pool_drew_what_and_at_which_cost(self):
        headers = gateway.draw(GATEWAY, model="emoji", prompt="star").headers
        self.assertEqual(headers["x-easel-pool"], "cpu")
        self.assertRegex(headers["x-easel-revision"], "^sha256:[0-9a-f]{64}$")
        self.assertGreater(float(headers["x-easel-cost-usd"]), 0)
        self.assertIn("x-request-id", headers)

    def test_kubectl_get_answers_daily_questions(self):
        table = CLUSTER.kubectl("get", "imagemodels,gpupools", "-A")
        self.assertRegex(table, r"(?m)^default\s+imagemodel.easel.dev/emoji\s+True\s")
        self.assertRegex(table, r"(?m)gpupool.easel.dev/cpu\s+True\s")

    def test_pods_run_with_the_least_privilege(self):
        for pod in inference_pods():
            self.assertFalse(pod["spec"]["automountServiceAccountToken"])
            security = pod["spec"]["containers"][0]["securityContext"]
            self.assertTrue(security["readOnlyRootFilesystem"])
            self.assertFalse(security["allowPrivilegeEscalation"])
            self.assertIn("memory", pod["spec"]["containers"][0]["resources"]["limits"])


if __name__ == "__main__":
    unittest.main()
