//! CLIP's text encoder: tokens in, one vector a token out, and with a projection one for the whole prompt.
//! Transcribed from transformers 5.23.0, `models/clip/modeling_clip.py`; fields are named as checkpoint keys.

mod pair;

use easel_checkpoints::Files;
use tch::{Kind, Tensor};

pub use self::pair::{ClipPair, PairOutput};

use super::config::Config;
use super::device::Placement;
use super::layers::{Embedding, LayerNorm, Linear, attend};
use super::lora::Layers;
use super::weights::{Section, Tensors, Weights, WeightsError};
use crate::pipeline::LoadError;

/// `eos_token_id` of exports before transformers 4.30, whatever the vocabulary. The end token is its greatest then.
const WRONG_END: i64 = 2;

#[derive(Debug)]
pub struct ClipTextModel {
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
    projection: Option<Head>,
    eos_token_id: i64,
    hidden_size: i64,
    max_position_embeddings: i64,
    placement: Placement,
    adaptable: Layers,
    tensors: Tensors,
}

#[derive(Debug)]
struct ClipConfig {
    vocab_size: i64,
    max_position_embeddings: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: usize,
    num_attention_heads: i64,
    layer_norm_eps: f64,
    hidden_act: Activation,
    projection_dim: Option<i64>,
    eos_token_id: i64,
}

/// What the last layer but one says of the tokens, and the last of the prompt.
#[derive(Debug)]
pub struct Penultimate {
    /// `[batch, length, hidden]`, before any norm
    pub hidden: Tensor,
    /// `[batch, projection_dim]`, of a `CLIPTextModelWithProjection`
    pub pooled: Option<Tensor>,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Activation {
    QuickGelu,
    Gelu,
}

impl ClipTextModel {
    /// Reads a folder of a checkpoint, such as `text_encoder`, that holds a `CLIPTextModel`.
    pub fn load(checkpoint: &Files, part: &str, placement: Placement) -> Result<Self, LoadError> {
        Self::load_parts(checkpoint, part, placement, false)
    }

    /// Reads a folder that holds a `CLIPTextModelWithProjection`.
    pub fn load_with_projection(checkpoint: &Files, part: &str, placement: Placement) -> Result<Self, LoadError> {
        Self::load_parts(checkpoint, part, placement, true)
    }

    fn load_parts(checkpoint: &Files, part: &str, placement: Placement, projects: bool) -> Result<Self, LoadError> {
        let config = ClipConfig::read(checkpoint, part, projects)?;
        let weights = Weights::open(checkpoint, part, "model", placement).map_err(|error| error.of(part))?;
        Self::build(&config, &weights, placement).map_err(|error| error.of(part))
    }

    fn build(config: &ClipConfig, weights: &Weights, placement: Placement) -> Result<Self, WeightsError> {
        // transformers 5 saves without the prefix that every earlier release wrote, unless there is a projection.
        let whole = weights.root();
        let has_prefix = whole.contains("text_model.final_layer_norm.weight");
        let root = if has_prefix { whole.at("text_model") } else { whole.clone() };
        let (embeddings, layers) = (root.at("embeddings"), root.at("encoder").at("layers"));
        let positions = config.max_position_embeddings;
        let mut model = Self {
            token_embedding: Embedding::load(&embeddings.at("token_embedding"), config.vocab_size, config.hidden_size)?,
            position_embedding: Embedding::load(&embeddings.at("position_embedding"), positions, config.hidden_size)?,
            layers: (0..config.num_hidden_layers)
                .map(|layer| EncoderLayer::load(&layers.at(layer), config))
                .collect::<Result<_, _>>()?,
            final_layer_norm: LayerNorm::load(&root.at("final_layer_norm"), config.hidden_size, config.layer_norm_eps)?,
            projection: config.projection_dim.map(|dim| Head::load(&whole, config, dim)).transpose()?,
            eos_token_id: config.eos_token_id,
            hidden_size: config.hidden_size,
            max_position_embeddings: positions,
            placement,
            adaptable: Layers::default(),
            tensors: Tensors::default(),
        };
        // A buffer that exports before transformers 4.31 saved: it counts from 0.
        weights.finish(&["text_model.embeddings.position_ids", "embeddings.position_ids"])?;
        model.adaptable = weights.layers();
        model.tensors = weights.tensors();
        Ok(model)
    }

    /// Tokens that fit at most.
    pub fn max_length(&self) -> usize {
        usize::try_from(self.max_position_embeddings).unwrap_or_default()
    }

    /// Of one vector of the text.
    pub fn hidden_size(&self) -> i64 {
        self.hidden_size
    }

    /// Of the vector of a whole prompt.
    pub fn projection_dim(&self) -> Option<i64> {
        self.projection.as_ref().map(|projection| projection.dim)
    }

    /// Layers that adapters can change.
    pub fn adaptable(&self) -> &Layers {
        &self.adaptable
    }

    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// `[batch][length]` tokens → `[batch, length, hidden]`, after the final norm.
    pub fn forward(&self, tokens: &[Vec<i64>]) -> Tensor {
        let embeddings = self.embed(&self.input_ids(tokens));
        let hidden = self.layers.iter().fold(embeddings, |hidden, layer| layer.forward(&hidden));
        self.final_layer_norm.forward(&hidden)
    }

    /// `pooler_output` of `[batch][length]` tokens, `[batch, hidden]`: the vector of the end token, after the final norm.
    pub fn forward_pooled(&self, tokens: &[Vec<i64>]) -> Tensor {
        self.at_end(&self.input_ids(tokens), &self.forward(tokens))
    }

    /// `hidden_states[-2]` and `text_embeds` of `[batch][length]` tokens. Without a projection, the last layer is not run.
    pub fn forward_penultimate(&self, tokens: &[Vec<i64>]) -> Penultimate {
        let input_ids = self.input_ids(tokens);
        let (last, before) = self.layers.split_last().expect("a config without layers was refused");
        let hidden = before.iter().fold(self.embed(&input_ids), |hidden, layer| layer.forward(&hidden));
        let pool = |projection: &Head| {
            let last = self.final_layer_norm.forward(&last.forward(&hidden));
            projection.text_projection.forward(&self.at_end(&input_ids, &last))
        };
        let pooled = self.projection.as_ref().map(pool);
        Penultimate { hidden, pooled }
    }

    fn input_ids(&self, tokens: &[Vec<i64>]) -> Tensor {
        let rows: Vec<Tensor> = tokens.iter().map(|row| Tensor::from_slice(row)).collect();
        Tensor::stack(&rows, 0).to_device(self.placement.device) // [batch, length]
    }

    /// `[batch, length]` and `[batch, length, hidden]` → `[batch, hidden]`
    fn at_end(&self, input_ids: &Tensor, last_hidden_state: &Tensor) -> Tensor {
        // The first of equals: padding may be the end token too.
        let end = if self.eos_token_id == WRONG_END {
            input_ids.argmax(-1, false)
        } else {
            input_ids.eq(self.eos_token_id).to_kind(Kind::Int).argmax(-1, false)
        };
        let index = end.view([-1, 1, 1]).expand([-1, 1, self.hidden_size], false); // [batch, 1, hidden]
        last_hidden_state.gather(1, &index, false).squeeze_dim(1)
    }

    fn embed(&self, input_ids: &Tensor) -> Tensor {
        let positions = Tensor::arange(input_ids.size()[1], (Kind::Int64, self.placement.device));
        self.token_embedding.forward(input_ids) + self.position_embedding.forward(&positions)
    }
}

/// What `CLIPTextModelWithProjection` adds.
#[derive(Debug)]
struct Head {
    text_projection: Linear,
    dim: i64,
}

impl Head {
    fn load(root: &Section, config: &ClipConfig, dim: i64) -> Result<Self, WeightsError> {
        let text_projection = Linear::load_without_bias(&root.at("text_projection"), config.hidden_size, dim)?;
        Ok(Self { text_projection, dim })
    }
}

impl ClipConfig {
    /// transformers writes defaults of its base class into every config, so unknown options are not refused here;
    /// unknown keys among the weights are.
    fn read(checkpoint: &Files, part: &str, projects: bool) -> Result<Self, LoadError> {
        let mut config = Config::read(checkpoint, &format!("{part}/config.json"))?;
        if config.take_or("use_attention_mask", false)? {
            return Err(config.unsupported("use_attention_mask", true));
        }
        let num_hidden_layers = config.take_or("num_hidden_layers", 12)?;
        if num_hidden_layers == 0 {
            return Err(config.unsupported("num_hidden_layers", 0));
        }
        let projection_dim = if projects { Some(config.take_or("projection_dim", 512)?) } else { None };
        Ok(Self {
            vocab_size: config.need("vocab_size")?,
            max_position_embeddings: config.take_or("max_position_embeddings", 77)?,
            hidden_size: config.take_or("hidden_size", 512)?,
            intermediate_size: config.take_or("intermediate_size", 2048)?,
            num_hidden_layers,
            num_attention_heads: config.take_or("num_attention_heads", 8)?,
            layer_norm_eps: config.take_or("layer_norm_eps", 1e-5)?,
            hidden_act: config.take_or("hidden_act", Activation::QuickGelu)?,
            projection_dim,
            eos_token_id: config.take_or("eos_token_id", 49407)?,
        })
    }
}

#[derive(Debug)]
struct EncoderLayer {
    self_attn: Attention,
    layer_norm1: LayerNorm,
    mlp: Mlp,
    layer_norm2: LayerNorm,
}

impl EncoderLayer {
    fn load(section: &Section, config: &ClipConfig) -> Result<Self, WeightsError> {
        let (hidden, eps) = (config.hidden_size, config.layer_norm_eps);
        Ok(Self {
            self_attn: Attention::load(&section.at("self_attn"), hidden, config.num_attention_heads)?,
            layer_norm1: LayerNorm::load(&section.at("layer_norm1"), hidden, eps)?,
            mlp: Mlp::load(&section.at("mlp"), config)?,
            layer_norm2: LayerNorm::load(&section.at("layer_norm2"), hidden, eps)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.self_attn.forward(&self.layer_norm1.forward(x));
        &x + self.mlp.forward(&self.layer_norm2.forward(&x))
    }
}

#[derive(Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: i64,
}

impl Attention {
    fn load(section: &Section, hidden: i64, heads: i64) -> Result<Self, WeightsError> {
        let linear = |name: &str| Linear::load(&section.at(name), hidden, hidden);
        Ok(Self {
            q_proj: linear("q_proj")?,
            k_proj: linear("k_proj")?,
            v_proj: linear("v_proj")?,
            out_proj: linear("out_proj")?,
            heads,
        })
    }

    /// A token sees itself and those before it.
    fn forward(&self, x: &Tensor) -> Tensor {
        let (query, key, value) = (self.q_proj.forward(x), self.k_proj.forward(x), self.v_proj.forward(x));
        self.out_proj.forward(&attend(&query, &key, &value, self.heads, true))
    }
}

#[derive(Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
    act: Activation,
}

impl Mlp {
    fn load(section: &Section, config: &ClipConfig) -> Result<Self, WeightsError> {
        Ok(Self {
            fc1: Linear::load(&section.at("fc1"), config.hidden_size, config.intermediate_size)?,
            fc2: Linear::load(&section.at("fc2"), config.intermediate_size, config.hidden_size)?,
            act: config.hidden_act,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.fc1.forward(x);
        let x = match self.act {
            // transformers 5.23.0, activations.py, QuickGELUActivation
            Activation::QuickGelu => &x * (&x * 1.702).sigmoid(),
            Activation::Gelu => x.gelu("none"),
        };
        self.fc2.forward(&x)
    }
}
