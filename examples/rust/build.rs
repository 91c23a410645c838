//! Generates the client from the proto. protox compiles it, so no protoc need be installed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    let files = ["router", "admin"]
        .map(|service| format!("matrix/appservice/v1/appservice_{service}_service.proto"));
    println!("cargo:rerun-if-changed={root}");
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(protox::compile(files, [root])?)?;
    Ok(())
}
