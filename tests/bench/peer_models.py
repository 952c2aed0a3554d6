"""The one model in the forms the peers read: from the GGUF that scripts/get-model brings.

    peer_models.py GGUF FOLDER

writes FOLDER/bf16.gguf (for llama.cpp; matrices in bfloat16, norms in float32) and FOLDER/hf (for PyTorch and TRL;
bfloat16 safetensors, made by transformers' own GGUF reader). Does nothing for what is there already.
"""
import os
import sys


def write_bf16_gguf(source: str, target: str) -> None:
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
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if values.ndim >= 2:
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16),
                              raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(target + ".part", target)


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
    source, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(os.path.join(folder, "bf16.gguf")):
        write_bf16_gguf(source, os.path.join(folder, "bf16.gguf"))
    if not os.path.exists(os.path.join(folder, "hf")):
        write_hf_folder(source, os.path.join(folder, "hf"))


if __name__ == "__main__":
    main()
