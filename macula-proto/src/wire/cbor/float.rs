//! Floats: half precision by hand, and the shortest of the three sizes.

/// The value of a half-precision float.
pub(super) fn f16_to_f64(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1F);
    let fraction = f64::from(bits & 0x3FF);
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    sign * magnitude
}

/// The half-precision float of exactly this value, if there is one. `value` is finite.
pub(super) fn f64_to_f16(value: f64) -> Option<u16> {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = value.abs();
    if magnitude > 65504.0 {
        return None;
    }
    let smallest_normal = 2f64.powi(-14);
    let bits = if magnitude < smallest_normal {
        // Zero or subnormal: a count of 2^-24.
        exact_count(magnitude * 2f64.powi(24))?
    } else {
        let exponent = (magnitude.to_bits() >> 52) as i32 - 1023;
        let fraction = exact_count(magnitude * 2f64.powi(10 - exponent))? - 1024;
        ((exponent + 15) as u16) << 10 | fraction
    };
    Some(sign | bits)
}

/// `value`, which is small and not negative, if it is whole.
fn exact_count(value: f64) -> Option<u16> {
    (value.fract() == 0.0).then_some(value as u16)
}

/// The single-precision float of exactly this value, if there is one. `value` is finite.
pub(super) fn f64_to_f32(value: f64) -> Option<f32> {
    let single = value as f32;
    (f64::from(single) == value).then_some(single)
}
