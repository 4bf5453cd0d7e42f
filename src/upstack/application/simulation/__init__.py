"""The closed loop in accelerated time, over recorded traffic."""
