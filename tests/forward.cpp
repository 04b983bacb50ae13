// Steps of a model that test_native_arm.py writes to standard input, by the kernels of the processor that this program is
// compiled for; the logits go to standard output. Integers are 32 bits, and each array has its bytes before it.
#include "engine.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

using namespace janeox;

struct Rows {  // engine.cpp
    const int32_t *ids, *slots, *starts, *counts;
    int32_t num_rows, num_tokens;
    const int32_t* wanted;
    int32_t num_wanted;
};

extern "C" {
struct Engine;
Engine* janeox_engine_new(int threads, const char* name);
const char* janeox_engine_name(const Engine* engine);
bool janeox_forward(Engine* engine, const Model* model, const Cache* cache, const Rows* rows, float* logits);
}

static std::vector<std::unique_ptr<std::vector<char>>> kept;

static void get(void* to, size_t size) {
    if (std::fread(to, 1, size, stdin) != size) std::exit(2);
}

static int32_t integer() {
    int32_t value;
    get(&value, sizeof value);
    return value;
}

static char* zeros(size_t size) {
    kept.push_back(std::make_unique<std::vector<char>>(size + 64));
    return kept.back()->data();
}

template <class T>
static const T* array() {
    const size_t size = integer();
    if (!size) return nullptr;
    char* memory = zeros(size);
    get(memory, size);
    return reinterpret_cast<const T*>(memory);
}

static Matrix matrix() {
    Matrix m{};
    for (int32_t* field : {&m.panels, &m.columns, &m.bits, &m.bfloat}) *field = integer();
    m.weight = array<char>();
    m.scales = array<uint16_t>();
    m.bias = array<float>();
    return m;
}

static Norm norm() {
    Norm n{};
    n.weight = array<float>();
    n.bias = array<float>();
    return n;
}

int main() {
    Model model{};
    for (int32_t* field : {&model.num_layers, &model.hidden, &model.heads, &model.head_dim, &model.rotary_dim,
                           &model.half_embedding, &model.parallel_residual, &model.tanh_gelu})
        *field = integer();
    get(&model.epsilon, sizeof model.epsilon);
    model.embedding = array<char>();
    model.cos = array<float>();
    model.sin = array<float>();
    model.final_norm = norm();
    model.head = matrix();
    std::vector<Layer> layers;
    for (int i = 0; i < model.num_layers; i++) {
        Layer layer{};
        layer.input = norm();
        layer.post_attention = norm();
        for (Matrix* m : {&layer.query_key_value, &layer.dense, &layer.dense_h_to_4h, &layer.dense_4h_to_h}) *m = matrix();
        layers.push_back(layer);
    }
    model.layers = layers.data();
    Cache cache{};
    const size_t slots = integer();
    cache.blocks = integer();
    cache.bits = integer();
    const size_t positions = slots * model.num_layers * model.heads * cache.blocks * LANES;
    cache.keys = zeros(positions * model.head_dim * cache.bits / 8);
    cache.values = zeros(positions * model.head_dim * cache.bits / 8);
    if (cache.bits == 8) {
        cache.key_scales = reinterpret_cast<float*>(zeros(positions * sizeof(float)));
        cache.value_scales = reinterpret_cast<float*>(zeros(positions * sizeof(float)));
    }
    Engine* engine = janeox_engine_new(2, "");
    if (!engine) return 3;
    std::fprintf(stderr, "%s", janeox_engine_name(engine));
    for (int steps = integer(); steps > 0; steps--) {
        Rows rows{};
        for (int32_t* field : {&rows.num_rows, &rows.num_tokens, &rows.num_wanted}) *field = integer();
        for (const int32_t** field : {&rows.ids, &rows.slots, &rows.starts, &rows.counts, &rows.wanted}) *field = array<int32_t>();
        std::vector<float> logits(static_cast<size_t>(rows.num_wanted) * model.head.panels * LANES);
        if (!janeox_forward(engine, &model, &cache, &rows, logits.data())) return 4;
        std::fwrite(logits.data(), sizeof(float), logits.size(), stdout);
    }
}
