//! Values of a pickle.

use tch::Kind;

/// The globals that a file may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    Storage(Kind),
}

impl Global {
    /// The global of this name, if it is one of them.
    pub fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch", storage) => Self::Storage(match storage {
                "DoubleStorage" => Kind::Double,
                "FloatStorage" => Kind::Float,
                "HalfStorage" => Kind::Half,
                "BFloat16Storage" => Kind::BFloat16,
                "LongStorage" => Kind::Int64,
                "IntStorage" => Kind::Int,
                "ShortStorage" => Kind::Int16,
                "CharStorage" => Kind::Int8,
                "ByteStorage" => Kind::Uint8,
                "BoolStorage" => Kind::Bool,
                _ => return None,
            }),
            _ => return None,
        })
    }
}

/// The storage and layout of a tensor, as the pickle states them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Name of the storage: the entry `data/KEY` of the archive.
    pub storage: String,
    /// Dtype of each element.
    pub kind: Kind,
    /// Elements in the storage.
    pub n_stored: i64,
    /// Element of the storage at which the tensor starts.
    pub offset: i64,
    pub shape: Vec<i64>,
    /// Strides in elements, one per dimension.
    pub strides: Vec<i64>,
}

/// A value: a plain one, or the index of a larger one in the arena.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Mark,
    Plain,
    Int(i64),
    Global(Global),
    Heap(usize),
}

/// A larger value.
pub(super) enum Cell {
    Text(String),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Storage { key: String, kind: Kind, n: i64 },
    Tensor(Claim),
}
