// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/graph.h"

#include "kernels/cuda/cudnn/api.h"
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#define NV_CUDNN_FRONTEND_DISABLE_LOGGING
#include <cudnn_frontend.h>

#include <array>
#include <vector>

#include "kernels/cuda/cudnn/handles.h"

namespace attnmux {
namespace {

namespace fe = cudnn_frontend;

// Names of the tensors in a variant pack.
enum Uid : int64_t { kQ = 1, kK, kV, kOut, kLse, kLengthsQ, kLengthsKv, kPadding, kScale, kAfterLast };
constexpr size_t kMaxTensors = 32;

fe::DataType_t data_type(int64_t dtype) {
  return dtype == ATTNMUX_BF16 ? fe::DataType_t::BFLOAT16 : fe::DataType_t::HALF;
}

// A graph of the frontend whose plan can be run without the frontend: its execute() fills hash maps in every call.
class OpenGraph : public fe::graph::Graph {
 public:
  const fe::ExecutionPlan& plan() const { return *plans.execution_plans[static_cast<size_t>(plans.candidate)]; }
  const std::unordered_set<int64_t>& uids() const { return variant_pack_uids; }
  fe::error_t values(std::unordered_map<int64_t, fe::graph::Tensor_attributes::pass_by_values_t>& by_uid) const {
    return collect_pass_by_value_tensors_subtree(by_uid);
  }
};

class Descriptor {
 public:
  ~Descriptor() {
    if (raw_ != nullptr) cudnnBackendDestroyDescriptor(raw_);
  }
  cudnnStatus_t create(cudnnBackendDescriptorType_t type) { return cudnnBackendCreateDescriptor(type, &raw_); }
  cudnnBackendDescriptor_t get() const { return raw_; }

 private:
  cudnnBackendDescriptor_t raw_ = nullptr;
};

class Built final : public CudnnGraph {
 public:
  Built(std::shared_ptr<OpenGraph> graph) : graph_(std::move(graph)) {}

  // What execute() would collect each time: names, and pointers to the constants of the graph.
  bool fill_template() {
    if (graph_->values(values_).is_bad() || graph_->uids().size() > kMaxTensors) return false;
    for (const int64_t uid : graph_->uids()) {
      uids_.push_back(uid);
      const auto value = values_.find(uid);
      if (value == values_.end() && (uid < kQ || uid >= kAfterLast)) return false;
      constants_.push_back(value == values_.end() ? nullptr
                                                  : std::visit([](auto& x) -> void* { return &x; }, value->second));
    }
    return true;
  }

  size_t workspace_bytes() const override { return static_cast<size_t>(graph_->plan().getWorkspaceSize()); }

  attnmux_code run(cudnnContext* handle, const Pointers& p, void* workspace, attnmux_error* error) const override {
    float scale = p.scale;
    void* const named[kAfterLast] = {nullptr, p.q,         p.k,          p.v,       p.out,
                                     p.lse,   p.lengths_q, p.lengths_kv, p.padding, &scale};
    std::array<void*, kMaxTensors> pointers;
    for (size_t i = 0; i < uids_.size(); ++i) pointers[i] = constants_[i] != nullptr ? constants_[i] : named[uids_[i]];
    Descriptor pack;
    const auto count = static_cast<int64_t>(uids_.size());
    cudnnStatus_t status = pack.create(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    const auto set = [&](cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n,
                         const void* values) {
      if (status == CUDNN_STATUS_SUCCESS) status = cudnnBackendSetAttribute(pack.get(), name, type, n, values);
    };
    set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, reinterpret_cast<const void*>(&workspace));
    set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count,
        reinterpret_cast<const void*>(pointers.data()));
    set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uids_.data());
    if (status == CUDNN_STATUS_SUCCESS) status = cudnnBackendFinalize(pack.get());
    if (status == CUDNN_STATUS_SUCCESS) status = cudnnBackendExecute(handle, graph_->plan().get_raw_desc(), pack.get());
    return status == CUDNN_STATUS_SUCCESS ? ATTNMUX_OK : cudnn_failed(error, status, "launching its attention graph");
  }

 private:
  std::shared_ptr<OpenGraph> graph_;
  std::unordered_map<int64_t, fe::graph::Tensor_attributes::pass_by_values_t> values_;
  std::vector<int64_t> uids_;
  std::vector<void*> constants_;  // null: a tensor of the call
};

class Builder {
 public:
  explicit Builder(const CudnnShape& shape) : s_(shape), graph_(std::make_shared<OpenGraph>()) {
    graph_->set_io_data_type(data_type(s_.dtype))
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
  }

  std::shared_ptr<OpenGraph> graph() { return graph_; }

  void describe() {
    auto options = fe::graph::SDPA_attributes().set_name("attention").set_generate_stats(s_.has_lse != 0);
    options.set_attn_scale(graph_->tensor(Attributes()
                                              .set_name("scale")
                                              .set_uid(kScale)
                                              .set_dim({1, 1, 1, 1})
                                              .set_stride({1, 1, 1, 1})
                                              .set_is_pass_by_value(true)
                                              .set_data_type(fe::DataType_t::FLOAT)));
    set_masks(options);
    const auto q = tensor("q", kQ, {s_.batch, s_.num_heads_q, s_.seqlen_q, s_.head_dim}, s_.q);
    const auto k = tensor("k", kK, {s_.batch, s_.num_heads_kv, s_.seqlen_kv, s_.head_dim}, s_.k);
    const auto v = tensor("v", kV, {s_.batch, s_.num_heads_kv, s_.seqlen_kv, s_.head_dim_v}, s_.v);
    auto [out, lse] = graph_->sdpa(q, k, v, options);
    out->set_output(true).set_uid(kOut).set_dim({s_.batch, s_.num_heads_q, s_.seqlen_q, s_.head_dim_v});
    out->set_stride({s_.out[0], s_.out[2], s_.out[1], 1});
    if (s_.has_lse == 0) return;
    lse->set_output(true).set_uid(kLse).set_data_type(fe::DataType_t::FLOAT);
    lse->set_dim({s_.batch, s_.num_heads_q, s_.seqlen_q, 1}).set_stride({s_.lse[0], s_.lse[1], s_.lse[2], 1});
  }

 private:
  using Attributes = fe::graph::Tensor_attributes;

  // Ours are (batch, row, head); cuDNN's (batch, head, row).
  std::shared_ptr<Attributes> tensor(const char* name, Uid uid, const std::vector<int64_t>& extents,
                                     const int64_t* strides) {
    return graph_->tensor(Attributes()
                              .set_name(name)
                              .set_uid(uid)
                              .set_dim(extents)
                              .set_stride({strides[0], strides[2], strides[1], 1})
                              .set_data_type(data_type(s_.dtype)));
  }

  std::shared_ptr<Attributes> lengths(const char* name, Uid uid) {
    return graph_->tensor(Attributes()
                              .set_name(name)
                              .set_uid(uid)
                              .set_dim({s_.batch, 1, 1, 1})
                              .set_stride({1, 1, 1, 1})
                              .set_data_type(fe::DataType_t::INT32));
  }

  void set_masks(fe::graph::SDPA_attributes& options) {
    if (s_.has_lengths != 0) {
      options.set_padding_mask(true);
      options.set_seq_len_q(lengths("lengths_q", kLengthsQ)).set_seq_len_kv(lengths("lengths_kv", kLengthsKv));
    }
    if (s_.window_left >= 0 || s_.window_right >= 0) {
      options.set_diagonal_alignment(s_.align == ATTNMUX_ALIGN_BOTTOM_RIGHT ? fe::DiagonalAlignment_t::BOTTOM_RIGHT
                                                                            : fe::DiagonalAlignment_t::TOP_LEFT);
      // cuDNN's left bound counts the diagonal itself.
      if (s_.window_left >= 0) options.set_diagonal_band_left_bound(static_cast<int>(s_.window_left) + 1);
      if (s_.window_right >= 0) options.set_diagonal_band_right_bound(static_cast<int>(s_.window_right));
    }
    if (s_.has_padding != 0) {
      const int64_t pitch = cudnn_padding_pitch(s_.seqlen_kv);
      options.set_bias(graph_->tensor(Attributes()
                                          .set_name("padding")
                                          .set_uid(kPadding)
                                          .set_dim({s_.batch, 1, 1, s_.seqlen_kv})
                                          .set_stride({pitch, pitch, pitch, 1})
                                          .set_data_type(data_type(s_.dtype))));
    }
  }

  const CudnnShape& s_;
  std::shared_ptr<OpenGraph> graph_;
};

// cuDNN's words without the frontend's file names and line ends.
std::string words_of(std::string text) {
  for (char& c : text) c = c == '\n' || c == '\r' || c == '\t' ? ' ' : c;
  for (const char* prefix : {"[cudnn_frontend] ", "Error: ", "ERROR: "}) {
    if (text.starts_with(prefix)) text.erase(0, std::strlen(prefix));
  }
  while (text.ends_with(' ')) text.pop_back();
  return text.empty() ? "it gives no reason" : text;
}

attnmux_code refused(fe::error_t why, attnmux_error* error) {
  const auto version = static_cast<long long>(cudnnGetVersion());
  return fail_with(error, ATTNMUX_UNSUPPORTED, "kernel cuda_cudnn: cuDNN %lld.%lld.%lld does not take this problem: %s",
                   version / 10000, version % 10000 / 100, version % 100, words_of(why.get_message()).c_str());
}

}  // namespace

attnmux_code build_cudnn_graph(cudnnContext* handle, const CudnnShape& shape, std::unique_ptr<CudnnGraph>& graph,
                               attnmux_error* error) {
  try {
    Builder builder(shape);
    builder.describe();
    const std::shared_ptr<OpenGraph> g = builder.graph();
    fe::error_t status = g->validate();
    if (status.is_good()) status = g->build_operation_graph(handle);
    if (status.is_good()) status = g->create_execution_plans({fe::HeurMode_t::A});
    if (status.is_good()) {
      g->deselect_numeric_notes({fe::NumericalNote_t::NONDETERMINISTIC});
      status = g->check_support();
    }
    if (status.is_good()) status = g->build_plans(fe::BuildPlanPolicy_t::HEURISTICS_CHOICE);
    if (status.is_bad()) return refused(status, error);
    auto built = std::make_unique<Built>(g);
    if (!built->fill_template()) {
      return fail_with(error, ATTNMUX_INTERNAL, "kernel cuda_cudnn: the graph has a tensor that nobody knows");
    }
    graph = std::move(built);
    return ATTNMUX_OK;
  } catch (const std::exception& failure) {
    return refused({fe::error_code_t::GRAPH_NOT_SUPPORTED, failure.what()}, error);
  }
}

}  // namespace attnmux
