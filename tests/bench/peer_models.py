"""The models in the forms the peers read.

    peer_models.py FOLDER SOURCE FORM...

SOURCE is the GGUF that scripts/get-model brings, or a folder that random_model.py made. FORMs: bf16 and q8_0 write
FOLDER/bf16.gguf and FOLDER/q8_0.gguf for llama.cpp (matrices in that type, norms in float32); hf writes FOLDER/hf for
PyTorch and TRL (bfloat16 safetensors, made by transformers' own GGUF reader; of a GGUF only). Does nothing for what is
there already.
"""
import json
import os
import sys


def add_tensor(writer, name: str, values, form: str) -> None:
    import gguf

    if values.ndim < 2:
        writer.add_tensor(name, values)
        return
    kind = gguf.GGMLQuantizationType.BF16 if form == "bf16" else gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def finish(writer, target: str) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(target + ".part", target)


def file_type(form: str):
    import gguf

    return gguf.LlamaFileType.MOSTLY_BF16 if form == "bf16" else gguf.LlamaFileType.MOSTLY_Q8_0


def write_gguf_again(source: str, target: str, form: str) -> None:
    """The same file with other types of matrices: everything else as it was."""
    import gguf
    import numpy

    reader = gguf.GGUFReader(source)
    architecture = bytes(reader.fields["general.architecture"].parts[-1]).decode()
    writer = gguf.GGUFWriter(target + ".part", architecture)
    for field in reader.fields.values():
        # The writer makes the header's own fields, the architecture and the file type itself.
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type",
                                                            "general.quantization_version"):
            continue
        kind = field.types[0]
        writer.add_key_value(field.name, field.contents(), kind,
                             field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    writer.add_file_type(file_type(form))
    for tensor in reader.tensors:
        add_tensor(writer, tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32), form)
    finish(writer, target)


def write_gguf_of_folder(source: str, target: str, form: str) -> None:
    """A folder without a tokenizer: the file has none either, and says how many ids there are."""
    import gguf
    import numpy

    with open(os.path.join(source, "config.json")) as f:
        config = json.load(f)
    layers, kind = config["num_hidden_layers"], config["model_type"]
    writer = gguf.GGUFWriter(target + ".part", kind)
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    writer.add_file_type(file_type(form))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA if kind == "llama" else gguf.MODEL_ARCH.QWEN2, layers)
    path = os.path.join(source, "model.safetensors")
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(length))
    data = numpy.memmap(path, dtype=numpy.uint8, mode="r", offset=8 + length)
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        values = (data[begin:end].view(numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32).reshape(tensor["shape"])
        add_tensor(writer, names.get_name(name, try_suffixes=(".weight", ".bias")), values, form)
    finish(writer, target)


def write_hf_folder(source: str, target: str) -> None:
    import torch
    import transformers

    folder, name = os.path.split(os.path.abspath(source))
    read = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.bfloat16)
    # What was read from a GGUF counts as quantised and won't be saved; a new model with the same weights will.
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(read.state_dict())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model.save_pretrained(target + ".part")
    tokenizer.save_pretrained(target + ".part")
    os.rename(target + ".part", target)


def main() -> None:
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    folder, source, forms = sys.argv[1], sys.argv[2], sys.argv[3:]
    os.makedirs(folder, exist_ok=True)
    for form in forms:
        target = os.path.join(folder, form if form == "hf" else form + ".gguf")
        if os.path.exists(target):
            continue
        if form == "hf":
            write_hf_folder(source, target)
        elif os.path.isdir(source):
            write_gguf_of_folder(source, target, form)
        else:
            write_gguf_again(source, target, form)


if __name__ == "__main__":
    main()
