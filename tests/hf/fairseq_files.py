"""Models of transformers under the names of fairseq, and the settings that fairseq keeps beside them."""

import re

from tests.models.speech_models import FAMILIES

# Of transformers: of fairseq (fairseq/models/wav2vec/wav2vec2.py, hubert.py; unilm/wavlm/WavLM.py).
NAMES = {
    r"feature_extractor.conv_layers.(\d+).conv.(\w+)": r"feature_extractor.conv_layers.\1.0.\2",
    r"feature_projection.projection.(\w+)": r"post_extract_proj.\1",
    r"feature_projection.layer_norm.(\w+)": r"layer_norm.\1",
    r"encoder.pos_conv_embed.layers.(\d+).conv.(\w+)": r"encoder.pos_conv.\1.0.\2",
    r"encoder.pos_conv_embed.batch_norm.(\w+)": r"encoder.pos_conv.0.\1",
    r"encoder.pos_conv_embed.conv.parametrizations.weight.original0": r"encoder.pos_conv.0.weight_g",
    r"encoder.pos_conv_embed.conv.parametrizations.weight.original1": r"encoder.pos_conv.0.weight_v",
    r"encoder.layers.(\d+).attention.([qkv]_proj|out_proj).(\w+)": r"encoder.layers.\1.self_attn.\2.\3",
    r"encoder.layers.0.attention.rel_attn_embed.weight": r"encoder.layers.0.self_attn.relative_attention_bias.weight",
    r"encoder.layers.(\d+).attention.gru_rel_pos_const": r"encoder.layers.\1.self_attn.grep_a",
    r"encoder.layers.(\d+).attention.gru_rel_pos_linear.(\w+)": r"encoder.layers.\1.self_attn.grep_linear.\2",
    r"encoder.layers.(\d+).layer_norm.(\w+)": r"encoder.layers.\1.self_attn_layer_norm.\2",
    r"encoder.layers.(\d+).feed_forward.intermediate_dense.(\w+)": r"encoder.layers.\1.fc1.\2",
    r"encoder.layers.(\d+).feed_forward.output_dense.(\w+)": r"encoder.layers.\1.fc2.\2",
    r"encoder.layers.(\d+).final_layer_norm.(\w+)": r"encoder.layers.\1.final_layer_norm.\2",
    r"encoder.layer_norm.(\w+)": r"encoder.layer_norm.\1",
    r"masked_spec_embed": r"mask_emb",
}


def fairseq_state(model, family: str, prefix: str = "") -> dict:
    large = FAMILIES[family][1].get("feat_extract_norm") == "layer" or family == "data2vec"
    norm_at = r"feature_extractor.conv_layers.\1.2.1.\2" if large else r"feature_extractor.conv_layers.\1.2.\2"
    names = NAMES | {r"feature_extractor.conv_layers.(\d+).layer_norm.(\w+)": norm_at}
    conv_at = 1 if family == "mhubert-25hz" else 0
    names |= {r"encoder.pos_conv_embed.conv.(weight|bias)": rf"encoder.pos_conv.{conv_at}.\1"}
    state = {}
    for theirs, value in model.state_dict().items():
        theirs = re.sub(r"^(hubert|wav2vec2)\.", "", theirs)
        if theirs.startswith("lm_head."):
            state[theirs.replace("lm_head", "w2v_encoder.proj" if prefix else "proj")] = value
            continue
        [(pattern, name)] = [
            (p, n) for p, n in names.items() if re.fullmatch(p.replace(".", r"\.").replace(r"\\.", r"\."), theirs)
        ]
        state[prefix + re.sub(pattern, name, theirs)] = value
    return state


def settings_of(family: str) -> dict:
    convs = "[(24,10,5)] + [(24,3,2)] * 4 + [(24,2,2)] * 2" + " + [(24,2,2)]" * (family == "mhubert-25hz")
    large = FAMILIES[family][1].get("do_stable_layer_norm", False)
    encoder = {"encoder_attention_heads": 4, "conv_feature_layers": convs, "layer_norm_first": large}
    return encoder | {"max_distance": 30, "activation_fn": "gelu"}
